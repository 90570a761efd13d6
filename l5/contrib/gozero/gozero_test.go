package l5gozero_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/core/service"
	"github.com/zeromicro/go-zero/core/stat"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5gozero "github.com/zhiyun-ops/zhiyun/l5/contrib/gozero"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func init() {
	logx.Disable()
	stat.DisableLog()
}

// backend answers, or fails when told to.
type backend struct {
	healthpb.UnimplementedHealthServer
	calls atomic.Int64
	fail  atomic.Bool
}

func (b *backend) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	b.calls.Add(1)
	if b.fail.Load() {
		return nil, status.Error(codes.Unavailable, "as told")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// serve runs a zrpc server.
func serve(t testing.TB) (addr string, b *backend) {
	t.Helper()
	addr, b = addrtest.Free(t), &backend{} // go-zero wants a port
	conf := zrpc.RpcServerConf{ServiceConf: service.ServiceConf{Name: "shop.cart", Mode: service.TestMode}, ListenOn: addr, Timeout: 30_000}
	server, err := zrpc.NewServer(conf, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, b) })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Start()
	}()
	t.Cleanup(func() {
		server.Stop()
		proc.Shutdown() // what zrpc's Start waits for
		<-ended
	})
	return addr, b
}

func dial(t testing.TB, names *l5.Client) healthpb.HealthClient {
	t.Helper()
	client, err := zrpc.NewClient(zrpc.RpcClientConf{Target: "l5:///shop.cart", NonBlock: true, Timeout: 30_000}, l5gozero.With(names))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Conn().Close(); err != nil {
			t.Error(err)
		}
	})
	return healthpb.NewHealthClient(client.Conn())
}

// A zrpc client calls zrpc servers, outcomes are told, and a server that shuts down leaves first.
func TestZRPC(t *testing.T) {
	s := l5test.NewServer(t, nil)
	names := l5test.Client(t, s.Target(), nil)
	var backends []*backend
	for range 2 {
		addr, b := serve(t)
		backends = append(backends, b)
		if err := l5gozero.Register(t.Context(), names, "shop.cart", addr, l5.WithSettle(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	stub := dial(t, names)
	l5test.Await(t, "both get calls", func() bool {
		if _, err := stub.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		return backends[0].calls.Load() > 0 && backends[1].calls.Load() > 0
	})
	backends[0].fail.Store(true)
	failed := false // the balancer may prefer the other one for a while
	l5test.Await(t, "the one that fails is ejected", func() bool {
		for range 10 {
			if _, err := stub.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				failed = true
				return false
			}
		}
		return failed
	})
	l5test.Await(t, "failures are told", func() bool { return s.Sink.Sum("shop.cart", "").Failures > 0 })
	proc.WrapUp()
	if got := s.Name().Instances("shop.cart"); len(got) != 0 {
		t.Errorf("after the shutdown began: %v", got)
	}
}

// Beside go-zero's own balancer over the same server.
func BenchmarkCall(b *testing.B) {
	s := l5test.NewServer(b, nil)
	names := l5test.Client(b, s.Target(), nil)
	addr, _ := serve(b)
	if err := s.Name().Register(b.Context(), []l5.Instance{{Service: "shop.cart", Addr: addr, Share: 100}}); err != nil {
		b.Fatal(err)
	}
	own, err := zrpc.NewClient(zrpc.RpcClientConf{Endpoints: []string{addr}, NonBlock: true, Timeout: 30_000})
	if err != nil {
		b.Fatal(err)
	}
	defer own.Conn().Close()
	for _, way := range []struct {
		name string
		stub healthpb.HealthClient
	}{{"l5", dial(b, names)}, {"p2c", healthpb.NewHealthClient(own.Conn())}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := way.stub.Check(b.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
