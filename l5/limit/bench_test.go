package limit_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// BenchmarkFloor is what a limit cannot do without: count in, compare, count out.
func BenchmarkFloor(b *testing.B) {
	var inflight, most atomic.Int64
	most.Store(1 << 40)
	b.ReportAllocs()
	for b.Loop() {
		if inflight.Add(1) > most.Load() {
			b.Fatal("full")
		}
		inflight.Add(-1)
	}
}

// BenchmarkGate is one admission and its end. Budget: 0 allocations, and while nothing is shed 4 times the floor.
func BenchmarkGate(b *testing.B) {
	for _, row := range []struct {
		name   string
		config limit.GateConfig
		calls  limit.Calls
	}{
		{"throttle", limit.GateConfig{}, limit.Calls{}},
		{"throttle+limit", limit.GateConfig{Limit: limit.Config{Healthy: time.Second}}, limit.Calls{}},
		{"shedding", limit.GateConfig{Limit: limit.Config{Healthy: time.Second}}, limit.Calls{Span: time.Second, Succeeded: 100, Rejected: 900}},
	} {
		b.Run(row.name, func(b *testing.B) {
			gate, err := limit.NewGate(row.config)
			if err != nil {
				b.Fatal(err)
			}
			gate.Step(row.calls)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if gate.Enter(ctx) == limit.Admitted {
					gate.Leave()
				}
			}
		})
	}
}

// BenchmarkLimiter is one call of a server, with the two looks at the clock that it needs.
func BenchmarkLimiter(b *testing.B) {
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: time.Second}}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		if limiter.Enter(begin, limit.Normal) {
			now := time.Now()
			limiter.Leave(now, now.Sub(begin), limit.Done)
		}
	}
}

// BenchmarkStep is what a tick costs for each service, and BenchmarkStep/instance for each instance that has a limit.
func BenchmarkStep(b *testing.B) {
	calls := limit.Calls{Span: 250 * time.Millisecond, Succeeded: 100, Latency: time.Second}
	b.Run("service", func(b *testing.B) {
		gate, err := limit.NewGate(limit.GateConfig{Limit: limit.Config{Healthy: time.Second}})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			gate.Step(calls)
		}
	})
	b.Run("instance", func(b *testing.B) {
		adaptive, err := limit.NewAdaptive(limit.Config{Healthy: time.Second})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			adaptive.Step(calls)
		}
	})
}
