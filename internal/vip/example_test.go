package vip_test

import (
	"context"
	"fmt"
	"net"

	"github.com/zhiyun-ops/zhiyun/internal/vip"
)

// Put a real server behind a virtual address, call it, and take it away.
func Example() {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	go func() {
		if conn, err := server.Accept(); err == nil {
			conn.Write([]byte("hello"))
			conn.Close()
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	address := free.Addr().String()
	free.Close()

	proxy, err := vip.NewProxy(vip.ProxyConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- proxy.Run(ctx) }()

	fmt.Println("added:", proxy.Add(ctx, address, server.Addr().String(), 100))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Println(err)
		return
	}
	text := make([]byte, 5)
	n, _ := conn.Read(text)
	conn.Close()
	fmt.Println("it says:", string(text[:n]))
	fmt.Println("removed:", proxy.Remove(ctx, address, server.Addr().String()))
	servers, _ := proxy.Servers(ctx, address)
	fmt.Println("left:", len(servers))
	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// added: <nil>
	// it says: hello
	// removed: <nil>
	// left: 0
	// ended: <nil>
}
