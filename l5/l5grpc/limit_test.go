package l5grpc_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5grpc"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// TestLimit calls a server that has one place left, which is kept for critical calls.
func TestLimit(t *testing.T) {
	t.Parallel()
	// It was in trouble an hour ago, so that it knows what it can do and says so.
	past := time.Now().Add(-time.Hour)
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: time.Second, Min: 5, Max: 5}}, past)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if limiter.Enter(past, limit.Critical) {
			limiter.Leave(past.Add(time.Second), 2*time.Second, limit.Done)
		}
		past = past.Add(time.Second)
	}
	if limiter.Load().Utilization == 0 {
		t.Fatal("the limiter does not know its load")
	}
	for range 4 {
		if !limiter.Enter(time.Now(), limit.Critical) {
			t.Fatal("no place")
		}
	}
	exempt := func(method string) bool { return method == healthpb.Health_List_FullMethodName }
	s, b := l5test.NewServer(t, nil), serve(t, "127.0.0.1:0", grpc.UnaryInterceptor(l5grpc.Limit(limiter, exempt)))
	register(t, s, b)
	client := l5test.Client(t, s.Target(), nil)
	stub := dial(t, client)

	if _, err := stub.Check(within(t), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a normal call: %v", err)
	}
	if _, err := stub.List(within(t), &healthpb.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a call that is exempt: %v", err)
	}
	if _, err := stub.Check(limit.WithPriority(within(t), limit.Critical), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a critical call: %v", err)
	}
	if got := limiter.State(); got.InFlight != 4 || got.Refused[limit.Normal] != 1 {
		t.Errorf("the limiter has %d calls in flight and refused %v", got.InFlight, got.Refused)
	}
	e := client.Explain("shop.cart")
	if i := e.Instances[0]; i.Rejected != 1 || i.Failures != 0 {
		t.Errorf("explained as %+v", i)
	}
	l5test.Await(t, "the caller's throttle goes by the load", func() bool {
		return math.Abs(client.Explain("shop.cart").Guard.Throttle.K-2) > 0.01
	})
}

// TestLate: a call that nobody answered in time is known as such.
func TestLate(t *testing.T) {
	t.Parallel()
	err := l5grpc.Judge(status.Error(codes.DeadlineExceeded, "late"))
	if !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded || errors.Is(err, l5.ErrOverloaded) {
		t.Errorf("judged as %v", err)
	}
}
