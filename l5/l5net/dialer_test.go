package l5net_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5net"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

// echo sends back what it reads; "reset" makes it break the connection.
func echo(t testing.TB, addr string) string {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				buffer := make([]byte, 64)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if string(buffer[:n]) == "reset" {
						conn.(*net.TCPConn).SetLinger(0)
						return
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	addr := echo(t, "127.0.0.1:0")
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.db", Addr: addr, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), nil)
	dialer := l5net.NewDialer(client)
	for _, name := range []string{"shop.db", "shop.db:5432"} {
		conn, err := dialer.DialContext(t.Context(), "tcp", name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Unix(1, 0))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past the deadline: %v", err)
		}
		if got := client.Explain("shop.db").Instances[0].InFlight; got != 1 {
			t.Errorf("%d calls in flight, want 1", got)
		}
		conn.Close()
		conn.Close()
	}
	conn, err := dialer.DialContext(t.Context(), "tcp4", "shop.db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("reset")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a broken connection was read from")
	}
	conn.Close()
	if got := client.Explain("shop.db").Instances[0].InFlight; got != 0 {
		t.Errorf("%d calls are left in flight", got)
	}
	l5test.Await(t, "3 connections, 1 failed", func() bool {
		sum := s.Sink.Sum("shop.db", addr)
		return sum.Requests == 3 && sum.Failures == 1
	})
	for _, c := range []struct{ network, name string }{{"udp", "shop.db"}, {"tcp6", "shop.db"}, {"tcp", "no such"}} {
		if _, err := dialer.DialContext(t.Context(), c.network, c.name); err == nil {
			t.Errorf("%s %s was dialled", c.network, c.name)
		}
	}
	if _, err := dialer.DialContext(t.Context(), "tcp", "nobody"); !errors.Is(err, l5.ErrNoInstance) {
		t.Errorf("a service without instances: %v", err)
	}
}

// A dead instance costs no dial: the next one is tried, over IPv6 as well.
func TestTries(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	live, dead := echo(t, "[::1]:0"), "127.0.0.1:1"
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.db", Addr: live, Share: 100}, {Service: "shop.db", Addr: dead, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	dialer := l5net.NewDialer(l5test.Client(t, s.Target(), nil), l5net.WithTries(10))
	for range 100 {
		conn, err := dialer.DialContext(t.Context(), "tcp", "shop.db")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	l5test.Await(t, "the dead one is told of", func() bool { return s.Sink.Sum("shop.db", dead).Failures > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialer.DialContext(ctx, "tcp", "shop.db"); err == nil {
		t.Error("dialled after the context ended")
	}
}

func ExampleDialer() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	target := "unix://" + filepath.Join(dir, "s")
	d, err := daemon.New(daemon.Config{Listen: target, Server: server.Config{Store: memstore.New()}})
	if err != nil {
		log.Fatal(err)
	}
	client, err := l5.New(l5.Config{Target: target, Caller: "shop.web"})
	if err != nil {
		log.Fatal(err)
	}
	go d.Run(ctx)
	go client.Run(ctx)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	if _, err := client.Register(ctx, "shop.db", listener.Addr().String()); err != nil {
		log.Fatal(err)
	}

	dialer := l5net.NewDialer(client)
	conn, err := dialer.DialContext(ctx, "tcp", "shop.db")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.RemoteAddr().String() == listener.Addr().String())
	// Output: true
}

// Beside the dialer of the standard library.
func BenchmarkDial(b *testing.B) {
	s := l5test.NewServer(b, nil)
	addr := echo(b, "127.0.0.1:0")
	if err := s.Name().Register(b.Context(), []l5.Instance{{Service: "shop.db", Addr: addr, Share: 100}}); err != nil {
		b.Fatal(err)
	}
	dialer := l5net.NewDialer(l5test.Client(b, s.Target(), nil))
	for _, way := range []struct {
		name, to string
		dial     func(context.Context, string, string) (net.Conn, error)
	}{{"l5", "shop.db", dialer.DialContext}, {"net", addr, new(net.Dialer).DialContext}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				conn, err := way.dial(b.Context(), "tcp", way.to)
				if err != nil {
					b.Fatal(err)
				}
				conn.(interface{ SetLinger(int) error }).SetLinger(0) // leaves no port in TIME_WAIT
				conn.Close()
			}
		})
	}
}
