package server_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// openings notes how each connection begins.
type openings struct {
	net.Listener
	mu   sync.Mutex
	seen []string // guarded by mu
}

// Accept implements net.Listener.
func (o *openings) Accept() (net.Conn, error) {
	conn, err := o.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &opening{Conn: conn, of: o}, nil
}

// direct counts the connections that did not begin as those of HTTP/2 do.
func (o *openings) direct() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.seen {
		if strings.HasPrefix(s, "POST ") {
			n++
		}
	}
	return n
}

type opening struct {
	net.Conn
	of   *openings
	once sync.Once
}

// Read implements net.Conn.
func (c *opening) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.once.Do(func() {
			c.of.mu.Lock()
			defer c.of.mu.Unlock()
			c.of.seen = append(c.of.seen, string(p[:n]))
		})
	}
	return n, err
}

// Clients and agents watch on direct streams: one that fell back to HTTP/2 would work, and cost the server twice as much.
func TestWatchIsDirect(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began := &openings{Listener: listener}
	s, err := server.New(server.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.Handle(s.Handler())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	running.Go(func() { _ = transport.NewServer(mux).Serve(ctx, began, time.Second) })
	t.Cleanup(func() { cancel(); running.Wait() })
	target := "http://" + listener.Addr().String()
	client := l5test.Client(t, target, nil)
	a, _ := l5test.Agent(t, target, func(c *agent.Config) { c.Device = "device-1" })
	behind := l5test.Client(t, a.Target(), func(c *l5.Config) { c.Caller = "behind.agent" })
	if err := s.Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*l5.Client{client, behind} {
		if _, err := c.Route(within(t), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if got := began.direct(); got != 2 {
		began.mu.Lock()
		defer began.mu.Unlock()
		t.Errorf("%d direct streams of a client and an agent; connections began with %q", got, began.seen)
	}
}
