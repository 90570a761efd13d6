package l5_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

var benchSizes = []int{10, 100, 1000, 10000}

// measure starts a measurement; its end reports the processor time of an operation, which is steadier than that on the
// wall of a shared machine. What was made ready is swept up before: it is not of an operation.
func measure(b *testing.B) func() {
	b.ReportAllocs()
	runtime.GC()
	cpu := func() int64 {
		var usage syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		return usage.Utime.Nano() + usage.Stime.Nano()
	}
	start := cpu()
	b.ResetTimer()
	return func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkRouteDone is one pick and its outcome. Budget: 0 allocations, 1.6 times BenchmarkFloor, and at 10,000
// instances 1.5 times of that at 10. What ticks and reports cost is not of a call: balance's BenchmarkWindow has the ticks.
func BenchmarkRouteDone(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			s := l5test.NewServer(b, nil)
			instances := make([]l5.Instance, n)
			for i := range instances {
				instances[i] = l5.Instance{Service: "bench", Addr: fmt.Sprintf("10.%d.%d.1:80", i/250, i%250), Weight: 50 + i%100, Share: 100}
			}
			if err := s.Name().Register(b.Context(), instances); err != nil {
				b.Fatal(err)
			}
			client := l5test.Client(b, s.Target(), func(c *l5.Config) { c.TickEvery, c.ReportEvery = time.Hour, time.Hour })
			if _, err := client.Route(b.Context(), "bench"); err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
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
		})
	}
}

// The floor: two weighted draws, calls in flight, a moving average and counters, and nothing else.

type floorInstance struct {
	ip       uint32
	inflight atomic.Int64
	latency  atomic.Int64
	ok       atomic.Int64
	_        [64 - 32]byte
}

type floorSnapshot struct {
	instances   []*floorInstance
	keep, alias []uint32
}

func (s *floorSnapshot) draw() *floorInstance {
	r := rand.Uint64()
	i := uint32(uint64(uint32(r)) * uint64(len(s.instances)) >> 32)
	if uint32(r>>32) > s.keep[i] {
		i = s.alias[i]
	}
	return s.instances[i]
}

// BenchmarkFloor is what BenchmarkRouteDone is held against.
func BenchmarkFloor(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			s := &floorSnapshot{}
			for i := range n {
				s.instances = append(s.instances, &floorInstance{ip: uint32(i)})
				s.keep = append(s.keep, rand.Uint32())
				s.alias = append(s.alias, rand.Uint32N(uint32(n)))
			}
			var current atomic.Pointer[floorSnapshot]
			current.Store(s)
			var sink atomic.Uint32
			defer measure(b)()
			b.RunParallel(func(pb *testing.PB) {
				var x uint32
				for pb.Next() {
					s := current.Load()
					a, c := s.draw(), s.draw()
					if c.inflight.Load()*c.latency.Load() < a.inflight.Load()*a.latency.Load() {
						a = c
					}
					a.inflight.Add(1)
					x += a.ip
					a.inflight.Add(-1)
					a.ok.Add(1)
					l := a.latency.Load()
					a.latency.Store(l - l>>4 + 1000>>4)
				}
				sink.Add(x)
			})
		})
	}
}

// TestRouteDoneAllocates holds the hot path to no allocation.
func TestRouteDoneAllocates(t *testing.T) {
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.ReportEvery, c.TickEvery = time.Hour, time.Hour })
	ctx := t.Context()
	if _, err := client.Route(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(1000, func() {
		route, _ := client.Route(ctx, "a")
		route.Done(l5.Outcome{Latency: time.Millisecond})
	})
	if allocs != 0 {
		t.Errorf("Route and Done allocate %v times", allocs)
	}
}
