package l5test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// Server is a name server in the test's process, on a unix socket. It can be stopped and started again over the same
// store and address. Its methods are for the test's goroutine.
type Server struct {
	// Sink holds the outcomes that were reported.
	Sink *Sink
	// Store is the registry's; it outlives Stop.
	Store *store.Memory

	t      testing.TB
	config server.Config
	dir    string
	socket string

	server *server.Server
	conns  *conns
	killed atomic.Bool
	stop   func()
}

// NewServer returns a server that runs until the test ends. Edit may change its config; nil leaves it.
func NewServer(t testing.TB, edit func(*server.Config)) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "l5") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Sink: &Sink{}, Store: store.NewMemory(), t: t, dir: dir, socket: filepath.Join(dir, "server.sock")}
	s.config = server.Config{Store: s.Store, Sink: s.Sink}
	if edit != nil {
		edit(&s.config)
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Target is what clients and agents connect to.
func (s *Server) Target() string { return "unix://" + s.socket }

// Dir is a folder with a short path, for the test's sockets and files.
func (s *Server) Dir() string { return s.dir }

// Name returns the server that runs now.
func (s *Server) Name() *server.Server { return s.server }

// Start starts a server that was stopped. It returns when the registry is loaded and the socket is open.
func (s *Server) Start() {
	s.t.Helper()
	name, err := server.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	os.Remove(s.socket)
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.killed.Store(false)
	s.server, s.conns = name, &conns{Listener: listener}
	mux := http.NewServeMux()
	mux.Handle(name.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := name.Run(ctx); err != nil {
			s.t.Errorf("server: %v", err)
		}
	})
	listening := s.conns
	running.Go(func() {
		if err := transport.NewServer(mux).Serve(ctx, listening, 2*time.Second); err != nil && !s.killed.Load() {
			s.t.Errorf("serve: %v", err)
		}
	})
	s.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	if err := name.Ready(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server as Run's context does.
func (s *Server) Stop() { s.stop() }

// Kill ends the server as a crash does for its peers: connections break first.
func (s *Server) Kill() {
	s.killed.Store(true)
	s.conns.Listener.Close()
	s.conns.cut()
	s.stop()
}

// Cut breaks all connections once; peers may connect again.
func (s *Server) Cut() { s.conns.cut() }

// Client returns a client of target that runs until the test ends. Edit may change its config; nil leaves it. It
// reports and ticks quickly.
func Client(t testing.TB, target string, edit func(*l5.Config)) *l5.Client {
	t.Helper()
	config := l5.Config{Target: target, Caller: "test.caller", ReportEvery: 20 * time.Millisecond, TickEvery: 10 * time.Millisecond}
	if edit != nil {
		edit(&config)
	}
	client, err := l5.New(config)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "client", client.Run)
	return client
}

// Agent returns an agent of target that runs until stop is called or the test ends. Edit may change its config; nil
// leaves it.
func Agent(t testing.TB, target string, edit func(*agent.Config)) (a *agent.Agent, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := agent.Config{
		Upstream: target, Device: "device-1", Socket: filepath.Join(dir, "agent.sock"), SnapshotFile: filepath.Join(dir, "snapshot"),
		ReportEvery: 20 * time.Millisecond,
	}
	if edit != nil {
		edit(&config)
	}
	a, err = agent.New(config)
	if err != nil {
		t.Fatal(err)
	}
	stop = run(t, "agent", a.Run)
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, stop
}

// run runs f until stop is called or the test ends.
func run(t testing.TB, name string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// conns is a listener that can cut what it has accepted.
type conns struct {
	net.Listener
	mu   sync.Mutex
	open []net.Conn // guarded by mu
}

// Accept implements net.Listener.
func (c *conns) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.open = append(c.open, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *conns) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}
