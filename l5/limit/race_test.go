package limit_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// TestTogether has many goroutines use one gate, budget and limiter while they are stepped. What went in came out, and
// nobody was let in beyond a limit; the race detector sees the rest.
func TestTogether(t *testing.T) {
	t.Parallel()
	const most = 20
	gate, err := limit.NewGate(limit.GateConfig{Limit: limit.Config{Healthy: time.Second, Max: most}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: time.Second, Max: most}}, now)
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for i := range 8 {
		ctx := limit.WithPriority(context.Background(), limit.Priority(i%3))
		callers.Go(func() {
			for n := range 2000 {
				if gate.Enter(ctx) == limit.Admitted {
					gate.Again(limit.Normal)
					gate.Leave()
				}
				at := now.Add(time.Duration(n) * time.Millisecond)
				if limiter.Enter(at, limit.PriorityOf(ctx)) {
					if n := limiter.State().InFlight; n > most+8 { // one that is turned away is counted for a moment
						t.Errorf("%d calls in flight", n)
					}
					limiter.Leave(at, time.Millisecond, limit.Result(n%4))
				}
			}
		})
	}
	for n := range 200 {
		gate.Step(limit.Calls{Span: 10 * time.Millisecond, Succeeded: int64(n), Rejected: int64(n % 3 * 100), Latency: time.Second})
		gate.State()
	}
	callers.Wait()
	if g, l := gate.State().InFlight, limiter.State().InFlight; g != 0 || l != 0 {
		t.Errorf("%d and %d calls are still in flight", g, l)
	}
}
