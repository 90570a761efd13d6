package server_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// BenchmarkLoad is a server's start at deck scale: 161,679 instances of 12,740 services in memory.
func BenchmarkLoad(b *testing.B) {
	const instances, services = 161_679, 12_740
	records := store.NewMemory()
	var ops []store.Op
	for i := range instances {
		op, err := server.Encode(l5.Instance{
			Service: fmt.Sprintf("module-%05d.api", i%services), Addr: fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255),
			Device: fmt.Sprintf("device-%06d", i), Module: fmt.Sprintf("module-%05d", i%services), Weight: 100, Share: 100, Owner: fmt.Sprintf("device-%06d", i),
		})
		if err != nil {
			b.Fatal(err)
		}
		if ops = append(ops, op); len(ops) == 100 || i == instances-1 {
			if _, err := records.Commit(b.Context(), ops...); err != nil {
				b.Fatal(err)
			}
			ops = ops[:0]
		}
	}
	records.Compact(1 << 40)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var replica *server.Replica
	for b.Loop() {
		replica = server.NewReplica(records, "")
		if err := replica.Load(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MB")
	runtime.KeepAlive(replica)
}

// BenchmarkPush is one share until it is with each of 1,000 streams; p99 is over all streams and changes.
func BenchmarkPush(b *testing.B) {
	const streams = 1000
	s := l5test.NewServer(b, nil)
	if err := s.Name().Register(b.Context(), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1"}}); err != nil {
		b.Fatal(err)
	}
	arrived := make(chan time.Time, streams)
	for range streams / 100 {
		c := wire(b, s.Target())
		for range 100 {
			next := watch(b, c, 0, "")
			next()
			next()
			go func() {
				for next() != nil {
					arrived <- time.Now()
				}
			}()
		}
	}
	var took []time.Duration
	share := 0
	for b.Loop() {
		share = (share + 1) % 101
		begin := time.Now()
		if err := s.Name().SetShare(b.Context(), "a", map[string]int{"127.0.0.1:1": share}); err != nil {
			b.Fatal(err)
		}
		for range streams {
			took = append(took, (<-arrived).Sub(begin))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}
