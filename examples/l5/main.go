// Command l5 is the whole of l5 in one process: a name server, a device's agent, three instances of a service and a
// caller. It changes a weight, kills an instance, stops the server, and shows what the caller makes of it.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)

	// A name server and, on the device, its agent.
	serverCtx, stopServer := context.WithCancel(ctx)
	defer stopServer()
	names, err := daemon.New(daemon.Config{Listen: "unix://" + filepath.Join(dir, "server.sock"), Server: server.Config{Store: memstore.New()}})
	if err != nil {
		return err
	}
	group.Go(func() error { return names.Run(serverCtx) })
	device, err := agent.New(agent.Config{
		Upstream: "unix://" + filepath.Join(dir, "server.sock"), Device: "device-1", Socket: filepath.Join(dir, "l5.sock"),
	})
	if err != nil {
		return err
	}
	group.Go(func() error { return device.Run(ctx) })

	// Three instances of shop.cart, which say their name.
	programs := map[string]*http.Server{}
	addrs := map[string]string{}
	for _, name := range []string{"red", "green", "blue"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		programs[name] = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })}
		defer programs[name].Close()
		go programs[name].Serve(listener)
		addrs[name] = listener.Addr().String()
		if err := device.Register(ctx, l5.Instance{Service: "shop.cart", Addr: addrs[name], Share: 100}); err != nil {
			return err
		}
	}

	// A caller. OnEvent tells what it makes of the instances' health.
	ejected := make(chan string, 10)
	client, err := l5.New(l5.Config{Target: device.Target(), Caller: "shop.web", OnEvent: func(e l5.Event) {
		if e.To == balance.Ejected && e.From == balance.Up {
			ejected <- e.Addr
		}
	}})
	if err != nil {
		return err
	}
	group.Go(func() error { return client.Run(ctx) })
	base := &http.Transport{DisableKeepAlives: true}
	web := &http.Client{Transport: l5http.NewTransport(client, l5http.WithBase(base))}
	call := func(n int) (got map[string]int, failed int) {
		got = map[string]int{}
		for range n {
			response, err := web.Get("http://shop.cart/")
			if err != nil {
				failed++
				continue
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			got[string(body)]++
		}
		return got, failed
	}

	got, failed := call(300)
	fmt.Fprintf(out, "300 calls: %d instances answered, %d failed\n", len(got), failed)

	if err := names.Server().SetShare(ctx, "shop.cart", map[string]int{addrs["blue"]: 0}); err != nil {
		return err
	}
	if err := await(ctx, func() bool { return share(client, addrs["blue"]) == 0 }); err != nil {
		return err
	}
	got, failed = call(300)
	fmt.Fprintf(out, "blue at share 0: blue answered %d of 300, %d failed\n", got["blue"], failed)
	if err := names.Server().SetShare(ctx, "shop.cart", map[string]int{addrs["blue"]: 100}); err != nil {
		return err
	}
	if err := await(ctx, func() bool { return share(client, addrs["blue"]) > 0.3 }); err != nil {
		return err
	}

	programs["red"].Close()
	_, failed = call(300)
	fmt.Fprintf(out, "red killed: ejected %t, at most 2 of 300 calls failed: %t\n", <-ejected == addrs["red"], failed <= 2)

	stopServer()
	_, failed = call(300)
	fmt.Fprintf(out, "server stopped: %d of 300 calls failed\n", failed)

	stop()
	return group.Wait()
}

// share is the share of the calls that an instance gets.
func share(client *l5.Client, addr string) float64 {
	for _, i := range client.Explain("shop.cart").Instances {
		if i.Addr == addr {
			return i.PickShare
		}
	}
	return 0
}

// await waits until ok is true.
func await(ctx context.Context, ok func() bool) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}
