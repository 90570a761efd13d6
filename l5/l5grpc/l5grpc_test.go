package l5grpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5grpc"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// backend is a gRPC server that answers by code.
type backend struct {
	healthpb.UnimplementedHealthServer
	addr  string
	calls atomic.Int64
	conns atomic.Int64 // accepted
	code  atomic.Uint32
	stop  func()
}

func (b *backend) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	b.calls.Add(1)
	if code := codes.Code(b.code.Load()); code != codes.OK {
		return nil, status.Error(code, "as told")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (b *backend) Watch(_ *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	if err := stream.Send(&healthpb.HealthCheckResponse{}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

type counted struct {
	net.Listener
	n *atomic.Int64
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

// serve starts a backend at addr; "127.0.0.1:0" finds a port.
func serve(t testing.TB, addr string, options ...grpc.ServerOption) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: listener.Addr().String()}
	server := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(server, b)
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(counted{listener, &b.conns}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	b.stop = sync.OnceFunc(func() {
		server.Stop()
		running.Wait()
	})
	t.Cleanup(b.stop)
	return b
}

// dial returns a stub for shop.cart.
func dial(t testing.TB, client *l5.Client, options ...l5grpc.Option) healthpb.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("l5:///shop.cart", l5grpc.With(client, options...), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStreamInterceptor(l5grpc.Streams))
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

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func register(t testing.TB, s *l5test.Server, backends ...*backend) {
	t.Helper()
	var all []l5.Instance
	for _, b := range backends {
		all = append(all, l5.Instance{Service: "shop.cart", Addr: b.addr, Share: 100})
	}
	if err := s.Name().Register(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

func TestOutcomesByCode(t *testing.T) {
	t.Parallel()
	s, b := l5test.NewServer(t, nil), serve(t, "127.0.0.1:0")
	register(t, s, b)
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Failures = 1000 })
	stub := dial(t, client)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("told: %+v", s.Sink.Sum("shop.cart", b.addr))
		}
	})
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		b.code.Store(uint32(code))
		if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); status.Code(err) != code {
			t.Errorf("%v became %v", code, err)
		}
	}
	l5test.Await(t, "5 failures and 1 rejection of 16 calls; the one cancelled is not told", func() bool {
		sum := s.Sink.Sum("shop.cart", b.addr)
		return sum.Requests == 16 && sum.Failures == 5 && sum.Rejected == 1
	})
	if i := client.Explain("shop.cart").Instances[0]; i.InFlight != 0 {
		t.Errorf("%d calls still count as in flight", i.InFlight)
	}
}

// Calls go where the name service says, change by change, and a drained instance loses none that are in flight.
func TestChanges(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, b := serve(t, "127.0.0.1:0"), serve(t, "[::1]:0")
	client := l5test.Client(t, s.Target(), nil)
	stub := dial(t, client)
	if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a service without instances: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		waiting <- err
	}()
	register(t, s, a)
	if err := <-waiting; err != nil {
		t.Errorf("a call that waited for the first instance: %v", err)
	}
	stream, err := stub.Watch(within(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	register(t, s, b)
	if err := s.Name().Drain(t.Context(), "shop.cart", a.addr); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "calls go to the new instance", func() bool {
		before := a.calls.Load()
		for range 10 {
			if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		return a.calls.Load() == before
	})
	if got := client.Explain("shop.cart").Instances; len(got) != 2 || got[0].InFlight+got[1].InFlight != 1 {
		t.Errorf("the stream is not in flight: %+v", got)
	}
}

// A dead instance costs no call: its connection fails, and calls are drawn to others. It is back when it is.
func TestDeadInstance(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, dead := serve(t, "127.0.0.1:0"), serve(t, addrtest.Free(t))
	dead.stop()
	register(t, s, a, dead)
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Balance.EjectFor = 20 * time.Millisecond })
	stub := dial(t, client)
	for range 1000 {
		if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	l5test.Await(t, "the name service hears of it", func() bool { return s.Sink.Sum("shop.cart", dead.addr).Failures > 0 })
	back := serve(t, dead.addr)
	l5test.Await(t, "it gets calls again", func() bool {
		if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		return back.calls.Load() > 0
	})
	a.stop()
	back.stop()
	l5test.Await(t, "all are dead, and calls fail at once", func() bool {
		_, err := stub.Check(within(t), &healthpb.HealthCheckRequest{})
		return status.Code(err) == codes.Unavailable
	})
}

// Servers that end connections for their age (100 of them, 500 in a long run, here after 3 s) cost no call and leave none
// stuck: grpc-go's weighted round robin is known to get there.
func TestConnectionAge(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	n := 100
	if os.Getenv("ZHIYUN_LONG") != "" {
		n = 500
	}
	var backends []*backend
	for range n {
		backends = append(backends, serve(t, "127.0.0.1:0", grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 3 * time.Second, MaxConnectionAgeGrace: 10 * time.Second})))
	}
	register(t, s, backends...)
	client := l5test.Client(t, s.Target(), nil)
	stub := dial(t, client)
	var failed atomic.Int64
	l5test.Await(t, "each connection was ended and opened again", func() bool {
		for range 50 {
			if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
				failed.Add(1)
				t.Log(err)
			}
		}
		for _, b := range backends {
			if b.conns.Load() < 2 {
				return false
			}
		}
		return true
	})
	if failed.Load() != 0 {
		t.Errorf("%d calls failed", failed.Load())
	}
	before := make([]int64, n)
	for i, b := range backends {
		before[i] = b.calls.Load()
	}
	l5test.Await(t, "every instance gets calls", func() bool {
		for range 50 {
			if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		return !slices.ContainsFunc(backends, func(b *backend) bool { return b.calls.Load() == before[slices.Index(backends, b)] })
	})
}

// A client that picks from a subset holds connections to that alone: all callers to all servers does not scale.
func TestSubset(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	var backends []*backend
	for range 100 {
		backends = append(backends, serve(t, "127.0.0.1:0"))
	}
	register(t, s, backends...)
	stub := dial(t, l5test.Client(t, s.Target(), func(c *l5.Config) { c.Subset = 5 }))
	for range 200 {
		if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	connected := 0
	for _, b := range backends {
		if b.conns.Load() > 0 {
			connected++
		}
	}
	if connected == 0 || connected > 5 {
		t.Errorf("connected to %d of 100 instances with a subset of 5", connected)
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	client := l5test.Client(t, s.Target(), nil)
	for name, do := range map[string]func() error{
		"a bad name": func() error {
			conn, err := grpc.NewClient("l5:///no/such", l5grpc.With(client), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return err
			}
			_, err = healthpb.NewHealthClient(conn).Check(within(t), &healthpb.HealthCheckRequest{})
			return errors.Join(err, conn.Close())
		},
		"a bad method config": func() error {
			_, err := dial(t, client, l5grpc.WithMethods("{")).Check(within(t), &healthpb.HealthCheckRequest{})
			return err
		},
	} {
		if err := do(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// Beside gRPC's own round robin over the same servers.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{3, 100} {
		s := l5test.NewServer(b, nil)
		var backends []*backend
		var addrs []string
		for range n {
			backends = append(backends, serve(b, "127.0.0.1:0"))
			addrs = append(addrs, backends[len(backends)-1].addr)
		}
		register(b, s, backends...)
		client := l5test.Client(b, s.Target(), nil)
		run := func(name string, stub healthpb.HealthClient) {
			b.Run(fmt.Sprintf("%s/n=%d", name, n), func(b *testing.B) {
				for range 10 * n { // connect
					if _, err := stub.Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := stub.Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("l5", dial(b, client))
		run("round_robin", roundRobin(b, addrs))
	}
}
