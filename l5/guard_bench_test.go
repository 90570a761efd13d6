package l5_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// BenchmarkRouteDoneGuarded is BenchmarkRouteDone with all guards on: the throttle, the limits of the service and of each
// instance, the budget, and deadlines. Budget: 40 ns more, 0 allocations. The deadline that a context carries costs
// what reading it costs; "deadline" shows it.
func BenchmarkRouteDoneGuarded(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { routeGuarded(b, n, context.Background()) })
	}
	b.Run("n=10/deadline", func(b *testing.B) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		routeGuarded(b, 10, ctx)
	})
}

func routeGuarded(b *testing.B, n int, ctx context.Context) {
	s := l5test.NewServer(b, nil)
	instances := make([]l5.Instance, n)
	for i := range instances {
		instances[i] = l5.Instance{Service: "bench", Addr: fmt.Sprintf("10.%d.%d.1:80", i/250, i%250), Weight: 50 + i%100, Share: 100}
	}
	if err := s.Name().Register(b.Context(), instances); err != nil {
		b.Fatal(err)
	}
	client := l5test.Client(b, s.Target(), func(c *l5.Config) {
		c.TickEvery, c.ReportEvery = 0, 0
		c.Guard.Limit.Healthy = time.Second
	})
	if _, err := client.Route(b.Context(), "bench"); err != nil {
		b.Fatal(err)
	}
	defer measure(b)()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			route, err := client.Route(ctx, "bench")
			if err != nil {
				b.Error(err)
				return
			}
			route.Done(l5.Outcome{Latency: time.Millisecond})
		}
	})
}
