package l5kratos_test

import (
	"context"
	"fmt"
	"io"
	"log"
	stdhttp "net/http"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	kerrors "github.com/go-kratos/kratos/v2/errors"
	klog "github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/go-kratos/kratos/v2/transport/http"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zhiyun-ops/zhiyun/l5"
	l5kratos "github.com/zhiyun-ops/zhiyun/l5/contrib/kratos"
	"github.com/zhiyun-ops/zhiyun/l5/l5grpc"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.NewStdLogger(io.Discard))
	os.Exit(m.Run())
}

// app runs a Kratos application with one server until the test or stop ends it.
func app(t *testing.T, names *l5kratos.Names, service string, server transport.Server) (stop func()) {
	t.Helper()
	u, err := server.(transport.Endpointer).Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	a := kratos.New(kratos.Name(service), kratos.Server(server), kratos.Registrar(names), kratos.Endpoint(u), kratos.Signal(syscall.SIGUSR1)) // none would mean all
	ended := make(chan error, 1)
	go func() { ended <- a.Run() }()
	var once atomic.Bool
	stop = func() {
		if once.CompareAndSwap(false, true) {
			if err := a.Stop(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// Applications register, are found and called over HTTP, and leave without a failed call; outcomes are told.
func TestHTTP(t *testing.T) {
	s := l5test.NewServer(t, nil)
	client := l5test.Client(t, s.Target(), nil)
	names := l5kratos.New(client)
	selector.SetGlobalSelector(names)
	var calls [2]atomic.Int64
	var stops [2]func()
	for i := range calls {
		server := http.NewServer(http.Address("127.0.0.1:0"))
		server.HandlePrefix("/", stdhttp.HandlerFunc(func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
			calls[i].Add(1)
			if r.URL.Path == "/fails" {
				w.WriteHeader(503)
			}
			io.WriteString(w, `{}`)
		}))
		stops[i] = app(t, names, "shop.web", server)
	}
	l5test.Await(t, "both are registered", func() bool { return len(s.Name().Instances("shop.web")) == 2 })
	web, err := http.NewClient(t.Context(), http.WithEndpoint("discovery:///shop.web"), http.WithDiscovery(names), http.WithSubset(0), http.WithBlock(), http.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	call := func(path string) error {
		var reply struct{}
		return web.Invoke(t.Context(), "GET", path, nil, &reply)
	}
	l5test.Await(t, "both get calls", func() bool {
		if err := call("/"); err != nil {
			t.Fatal(err)
		}
		return calls[0].Load() > 0 && calls[1].Load() > 0
	})
	if err := call("/fails"); !kerrors.IsServiceUnavailable(err) {
		t.Errorf("a failure: %v", err)
	}
	l5test.Await(t, "the failure is told", func() bool { return s.Sink.Sum("shop.web", "").Failures == 1 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stops[0]()
	}()
	for done := false; !done; {
		if err := call("/"); err != nil {
			t.Fatalf("a call failed while an application left: %v", err)
		}
		select {
		case <-stopped:
			done = true
		default:
		}
	}
	if got := len(s.Name().Instances("shop.web")); got != 1 {
		t.Errorf("%d instances left", got)
	}
}

// Over gRPC by Kratos' own balancer, and by l5grpc beneath Kratos' client.
func TestGRPC(t *testing.T) {
	s := l5test.NewServer(t, nil)
	client := l5test.Client(t, s.Target(), nil)
	names := l5kratos.New(client)
	selector.SetGlobalSelector(names)
	for range 2 {
		app(t, names, "shop.cart", grpc.NewServer(grpc.Address("127.0.0.1:0")))
	}
	l5test.Await(t, "both are registered", func() bool { return len(s.Name().Instances("shop.cart")) == 2 })
	byDiscovery, err := grpc.DialInsecure(t.Context(), grpc.WithEndpoint("discovery:///shop.cart"), grpc.WithDiscovery(names), grpc.WithSubset(0), grpc.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer byDiscovery.Close()
	direct, err := grpc.DialInsecure(t.Context(), grpc.WithEndpoint("l5:///shop.cart"), grpc.WithOptions(l5grpc.With(client)), grpc.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	const n = 50
	for range n {
		for _, conn := range []healthpb.HealthClient{healthpb.NewHealthClient(byDiscovery), healthpb.NewHealthClient(direct)} {
			if _, err := conn.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	l5test.Await(t, "calls of both ways are told", func() bool { return s.Sink.Sum("shop.cart", "").Requests > n+n/2 })
}

// Discovery tells each state, and node filters are kept to.
func TestWatchAndFilter(t *testing.T) {
	s := l5test.NewServer(t, nil)
	client := l5test.Client(t, s.Target(), nil)
	names := l5kratos.New(client)
	one := &registry.ServiceInstance{ID: "1", Name: "shop.pay", Version: "v2", Metadata: map[string]string{"lane": "blue"}, Endpoints: []string{"grpc://127.0.0.1:1", "http://127.0.0.1:2"}}
	if err := names.Register(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	watcher, err := names.Watch(t.Context(), "shop.pay")
	if err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "both endpoints are seen", func() bool {
		all, err := watcher.Next()
		return err == nil && len(all) == 2 && all[0].Version == "v2" && all[0].Metadata["lane"] == "blue"
	})
	pick := names.Build()
	if _, _, err := pick.Select(t.Context()); err == nil {
		t.Error("a node of none")
	}
	all, err := names.GetService(t.Context(), "shop.pay")
	if err != nil {
		t.Fatal(err)
	}
	var nodes []selector.Node
	for _, i := range all {
		u, err := url.Parse(i.Endpoints[0])
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, selector.NewNode(u.Scheme, u.Host, i))
	}
	pick.Apply(nodes)
	for range 100 {
		node, done, err := pick.Select(t.Context(), selector.WithNodeFilter(func(_ context.Context, all []selector.Node) []selector.Node {
			return all[:1]
		}))
		if err != nil || node.Address() != nodes[0].Address() {
			t.Fatalf("picked %v, %v", node, err)
		}
		done(t.Context(), selector.DoneInfo{})
	}
	if i := client.Explain("shop.pay"); i.Instances[0].InFlight+i.Instances[1].InFlight != 0 {
		t.Error("picks are left in flight")
	}
	if err := names.Deregister(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if err := watcher.Stop(); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "a stopped watch ends", func() bool { _, err := watcher.Next(); return err != nil })
	bad := &registry.ServiceInstance{ID: "2", Name: "shop.pay", Endpoints: []string{"grpc://127.0.0.1:1", "grpc://nowhere"}}
	if err := names.Register(t.Context(), bad); err == nil {
		t.Error("an endpoint without a port was registered")
	}
}

// Beside the work that Kratos' own weighted round robin does.
func BenchmarkSelect(b *testing.B) {
	s := l5test.NewServer(b, nil)
	client, err := l5.New(l5.Config{Target: s.Target(), Caller: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			log.Print(err)
		}
	}()
	own := selector.GlobalSelector() // Kratos' transports set it to their round robin, unless a test came before
	run := func(name string, builder selector.Builder, nodes []selector.Node) {
		pick := builder.Build()
		pick.Apply(nodes)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, done, err := pick.Select(ctx)
				if err != nil {
					b.Fatal(err)
				}
				done(ctx, selector.DoneInfo{})
			}
		})
	}
	for _, n := range []int{3, 1000} {
		service := fmt.Sprint("shop.", n)
		instances, nodes := make([]l5.Instance, n), make([]selector.Node, n)
		for i := range n {
			addr := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)
			instances[i] = l5.Instance{Service: service, Addr: addr, Share: 100}
			nodes[i] = selector.NewNode("grpc", addr, &registry.ServiceInstance{Name: service})
		}
		if err := s.Name().Register(ctx, instances); err != nil {
			b.Fatal(err)
		}
		run(fmt.Sprintf("kratos/n=%d", n), own, nodes)
		run(fmt.Sprintf("l5/n=%d", n), l5kratos.New(client), nodes)
	}
}
