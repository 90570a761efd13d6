package dns_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/zhiyun-ops/zhiyun/l5/door/dns"
)

func ExampleDoor() {
	ctx, stop := context.WithCancel(context.Background())
	d, err := dns.New(dns.Config{Names: instances(1), Caller: "shop.web", Listen: "127.0.0.1:0"}) // Names: the device's agent
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	addr, err := d.Addr(ctx)
	if err != nil {
		log.Fatal(err)
	}

	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr.String())
	}}
	fmt.Println(resolver.LookupHost(ctx, "shop.cart.l5."))
	stop()
	fmt.Println(<-ended)
	// Output:
	// [10.0.0.0] <nil>
	// <nil>
}
