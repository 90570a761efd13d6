package xds_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door/xds"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// backend counts calls.
type backend struct {
	healthpb.UnimplementedHealthServer
	addr  string
	calls atomic.Int64
}

func (b *backend) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	b.calls.Add(1)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func serve(t *testing.T, addr string) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: listener.Addr().String()}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, b)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.Stop()
		running.Wait()
	})
	return b
}

// grants change.
type grants struct {
	mu      sync.Mutex
	denied  string
	changed chan struct{}
}

func (g *grants) MayCall(_, service string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return service != g.denied
}

func (g *grants) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *grants) deny(service string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.denied = service
	close(g.changed)
	g.changed = make(chan struct{})
}

// open runs a door over an agent, and returns how a gRPC program reaches it.
func open(t *testing.T, s *l5test.Server, listen string) (uri string) {
	t.Helper()
	a, _ := l5test.Agent(t, s.Target(), nil)
	d, err := xds.New(xds.Config{Names: a, Caller: "test", Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	addr, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if addr.Network() == "unix" {
		return listen
	}
	return addr.String()
}

// dial is what a program does with a bootstrap file.
func dial(t *testing.T, uri, service string) healthpb.HealthClient {
	t.Helper()
	bootstrap := fmt.Sprintf(`{"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}], "node": {"id": "test"}}`, uri)
	resolver, err := grpcxds.NewXDSResolverWithConfigForTesting([]byte(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+service, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return healthpb.NewHealthClient(conn)
}

func call(t *testing.T, stub healthpb.HealthClient) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := stub.Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// gRPC's own xDS client finds the instances, over TCP and a unix socket, keeps to their weights and follows each change.
func TestProxyless(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			g := &grants{changed: make(chan struct{})}
			s := l5test.NewServer(t, func(c *server.Config) { c.Grants = g })
			a, b, c := serve(t, "127.0.0.1:0"), serve(t, "127.0.0.1:0"), serve(t, "[::1]:0")
			if err := s.Name().Register(t.Context(), []l5.Instance{
				{Service: "shop.cart", Addr: a.addr, Share: 100, Labels: map[string]string{"site": "north"}},
				{Service: "shop.cart", Addr: b.addr, Share: 25, Labels: map[string]string{"site": "north"}},
				{Service: "shop.cart", Addr: c.addr, Share: 0},
				{Service: "shop.cart", Addr: "db.example.org:80", Share: 100},
			}); err != nil {
				t.Fatal(err)
			}
			listen := "127.0.0.1:0"
			if network == "unix" {
				listen = "unix://" + filepath.Join(s.Dir(), "xds.sock")
			}
			uri := open(t, s, listen)
			stub := dial(t, uri, "shop.cart")
			const n = 2000
			for range n {
				if err := call(t, stub); err != nil {
					t.Fatal(err)
				}
			}
			if share := float64(b.calls.Load()) / n; share < 0.13 || share > 0.27 || c.calls.Load() != 0 {
				t.Errorf("the instance at a quarter of the weight got %.3f of calls, want 0.2; the one at none got %d", share, c.calls.Load())
			}
			if err := s.Name().SetShare(t.Context(), "shop.cart", map[string]int{c.addr: 100}); err != nil {
				t.Fatal(err)
			}
			if err := s.Name().Drain(t.Context(), "shop.cart", a.addr); err != nil {
				t.Fatal(err)
			}
			l5test.Await(t, "calls follow the changes and none is lost", func() bool {
				before := a.calls.Load()
				for range 20 {
					if err := call(t, stub); err != nil {
						t.Fatal(err)
					}
				}
				return c.calls.Load() > 0 && a.calls.Load() == before
			})
			empty := dial(t, uri, "shop.nobody")
			if err := call(t, empty); status.Code(err) != codes.Unavailable {
				t.Errorf("a service without instances: %v", err)
			}
			d := serve(t, "127.0.0.1:0")
			if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.nobody", Addr: d.addr, Share: 100}}); err != nil {
				t.Fatal(err)
			}
			l5test.Await(t, "its first instance gets calls", func() bool { return call(t, empty) == nil })
			g.deny("shop.cart")
			l5test.Await(t, "calls end with the grant", func() bool { return call(t, stub) != nil })
			g.deny("")
			l5test.Await(t, "calls go on with the grant", func() bool { return call(t, stub) == nil })
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := xds.New(xds.Config{Listen: "unix://x", Services: []string{"no such"}, MaxConns: -1})
	for _, want := range []string{"Names", "Caller", "Listen", "Services", "MaxConns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
