package l5_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

// names runs a name server on a unix socket, as cmd/l5-server does.
func names(ctx context.Context) (d *daemon.Daemon, target string, stop func()) {
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		log.Fatal(err)
	}
	target = "unix://" + filepath.Join(dir, "s")
	d, err = daemon.New(daemon.Config{Listen: target, Server: server.Config{Store: memstore.New()}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return d, target, func() {
		cancel()
		if err := <-ended; err != nil {
			log.Fatal(err)
		}
		os.RemoveAll(dir)
	}
}

// start returns a client that runs.
func start(ctx context.Context, target, caller string) (client *l5.Client, stop func()) {
	client, err := l5.New(l5.Config{Target: target, Caller: caller})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	return client, func() {
		cancel()
		if err := <-ended; err != nil {
			log.Fatal(err)
		}
	}
}

// A program routes a call and tells how it went.
func ExampleClient_Route() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, target, stop := names(ctx)
	defer stop()
	if err := d.Server().Register(ctx, []l5.Instance{{Service: "shop.cart", Addr: "10.0.0.7:8080", Share: 100}}); err != nil {
		log.Fatal(err)
	}
	client, end := start(ctx, target, "shop.web")
	defer end()

	route, err := client.Route(ctx, "shop.cart")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("calling", route.Addr())
	route.Done(l5.Outcome{Latency: 3 * time.Millisecond})

	_, err = client.Route(ctx, "shop.pay")
	fmt.Println(errors.Is(err, l5.ErrNoInstance))
	// Output:
	// calling 10.0.0.7:8080
	// true
}

// A program registers itself, serves, and leaves without a failed call.
func ExampleClient_Register() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, target, stop := names(ctx)
	defer stop()
	client, end := start(ctx, target, "shop.cart")
	defer end()

	registration, err := client.Register(ctx, "shop.cart", "10.0.0.7:8080", l5.WithWeight(200), l5.WithSettle(time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	for _, i := range d.Server().Instances("shop.cart") {
		fmt.Println(i.Addr, i.Reason)
	}
	if err := registration.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(d.Server().Instances("shop.cart")), "left")
	// Output:
	// 10.0.0.7:8080 weight 200 x share 100 %
	// 0 left
}

// Why does an instance get what it gets? Here one of three fails and is ejected.
func ExampleClient_Explain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, target, stop := names(ctx)
	defer stop()
	var instances []l5.Instance
	for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"} {
		instances = append(instances, l5.Instance{Service: "shop.cart", Addr: addr, Share: 100})
	}
	if err := d.Server().Register(ctx, instances); err != nil {
		log.Fatal(err)
	}
	client, end := start(ctx, target, "shop.web")
	defer end()
	for failures := 0; failures < 5; {
		route, err := client.Route(ctx, "shop.cart")
		if err != nil {
			log.Fatal(err)
		}
		if route.Addr() == "10.0.0.2:80" {
			route.Done(l5.Outcome{Err: errors.New("status 503")})
			failures++
			continue
		}
		route.Done(l5.Outcome{Latency: time.Millisecond})
	}
	for _, i := range client.Explain("shop.cart").Instances {
		fmt.Printf("%s %4.0f %%  %s\n", i.Addr, 100*i.PickShare, i.Reason)
	}
	// Output:
	// 10.0.0.1:80   50 %  up
	// 10.0.0.2:80    0 %  ejected: failures in a row, the last: status 503; ejected for 1s
	// 10.0.0.3:80   50 %  up
}

// A call is made again on another instance when that is safe: here nobody listens at the first, so that it had no effect.
func ExampleCall() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, target, stop := names(ctx)
	defer stop()
	if err := d.Server().Register(ctx, []l5.Instance{
		{Service: "shop.cart", Addr: "10.0.0.7:8080", Share: 100}, {Service: "shop.cart", Addr: "10.0.0.8:8080", Share: 100},
	}); err != nil {
		log.Fatal(err)
	}
	client, end := start(ctx, target, "shop.web")
	defer end()

	attempts := 0
	items, err := l5.Call(ctx, client, "shop.cart", func(ctx context.Context, route l5.Route) ([]string, error) {
		if attempts++; attempts == 1 {
			return nil, syscall.ECONNREFUSED
		}
		return []string{"tea", "a cup"}, nil
	})
	fmt.Println(items, err, attempts, "attempts")

	_, err = l5.Call(ctx, client, "shop.cart", func(ctx context.Context, route l5.Route) ([]string, error) {
		return nil, errors.New("it broke off in the middle")
	})
	fmt.Println(err)
	// Output:
	// [tea a cup] <nil> 2 attempts
	// it broke off in the middle
}
