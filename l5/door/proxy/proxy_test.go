package proxy_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door/proxy"
	"github.com/zhiyun-ops/zhiyun/l5/l5net"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// backend reads to the end of the stream and then answers with what it read, so that only half-closes get answers.
func backend(t testing.TB, addr string) string {
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
				if text, err := io.ReadAll(conn); err == nil {
					conn.Write(text)
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

// serve runs a door for shop.db in front of addrs.
func serve(t testing.TB, edit func(*proxy.Config), addrs ...string) (addr string, s *l5test.Server, stop func()) {
	t.Helper()
	s = l5test.NewServer(t, nil)
	for _, addr := range addrs {
		if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.db", Addr: addr, Share: 100}}); err != nil {
			t.Fatal(err)
		}
	}
	config := proxy.Config{Dialer: l5net.NewDialer(l5test.Client(t, s.Target(), nil)), Services: map[string]string{"shop.db": "[::1]:0"}, Drain: time.Millisecond}
	if edit != nil {
		edit(&config)
	}
	d, err := proxy.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	at, err := d.Addr(t.Context(), "shop.db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Addr(t.Context(), "shop.other"); err == nil {
		t.Error("a service that is not served has an address")
	}
	return at.String(), s, stop
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// ask sends text, ends that direction, and returns the answer.
func ask(t testing.TB, conn *net.TCPConn, text string) string {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// Bytes of any number pass both ways, half-closes too, and an instance that is dead costs no client anything.
func TestPasses(t *testing.T) {
	t.Parallel()
	live, dead := backend(t, "127.0.0.1:0"), "127.0.0.1:1"
	addr, s, _ := serve(t, nil, live, dead)
	long := strings.Repeat("0123456789", 100_000)
	for range 20 {
		if got := ask(t, dial(t, addr), long); got != long {
			t.Fatalf("%d bytes came back of %d", len(got), len(long))
		}
	}
	l5test.Await(t, "outcomes are told", func() bool {
		return s.Sink.Sum("shop.db", live).Requests == 20 && s.Sink.Sum("shop.db", live).Failures == 0 && s.Sink.Sum("shop.db", dead).Failures > 0
	})
}

func TestNobody(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, nil)
	if n, err := dial(t, addr).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a service without instances: %d, %v", n, err)
	}
}

// A silent connection is ended, and so makes room where the bound was reached.
func TestBounds(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, func(c *proxy.Config) { c.MaxConns, c.Idle = 1, time.Second }, backend(t, "127.0.0.1:0"))
	silent := dial(t, addr)
	if _, err := silent.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, dial(t, addr), "hello"); got != "hello" { // waits in the queue until the first is gone
		t.Errorf("got %q", got)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection is open")
	}
}

// At its end the door lets connections finish, for a time.
func TestDrain(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	addr, _, stop := serve(t, func(c *proxy.Config) { c.Drain, c.Metrics = 20*time.Second, metrics }, backend(t, "127.0.0.1:0"))
	conn := dial(t, addr)
	if _, err := conn.Write([]byte("hel")); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the connection is joined", func() bool {
		families, err := metrics.Gather()
		return err == nil && len(families) == 1 && families[0].GetMetric()[0].GetGauge().GetValue() == 1
	})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	l5test.Await(t, "no more are accepted", func() bool {
		probe, err := net.Dial("tcp", addr)
		if err == nil {
			probe.Close()
		}
		return err != nil
	})
	if got := ask(t, conn, "lo"); got != "hello" {
		t.Errorf("got %q", got)
	}
	<-stopped
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := proxy.New(proxy.Config{Services: map[string]string{"no such": "10.0.0.1:1"}, Idle: -1})
	for _, want := range []string{"Dialer", "service id", "loopback", "Idle"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// A short exchange, beside one without the proxy.
func BenchmarkExchange(b *testing.B) {
	direct := backend(b, "127.0.0.1:0")
	addr, _, _ := serve(b, nil, direct)
	for _, way := range []struct{ name, addr string }{{"proxy", addr}, {"direct", direct}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				conn, err := net.Dial("tcp", way.addr)
				if err != nil {
					b.Fatal(err)
				}
				ask(b, conn.(*net.TCPConn), "hello")
				conn.Close()
			}
		})
	}
}
