package sample_test

import (
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sample"
)

// Whatever is offered, no more than the rate is served, and nobody waits longer than the queue is long.
func TestCapacityIsTheRate(t *testing.T) {
	t.Parallel()
	for _, offered := range []int{50, 100, 300, 1000} {
		c := sample.NewCapacity(sample.Settings{Rate: 100, Workers: 4, Queue: 20})
		begin := time.Unix(0, 0)
		end := begin.Add(10 * time.Second)
		served, longest := 0, time.Duration(0)
		for i := range offered * 10 {
			now := begin.Add(time.Duration(i) * time.Second / time.Duration(offered))
			until, ok := c.Admit(now)
			if ok && !until.After(end) {
				served++
			}
			longest = max(longest, until.Sub(now))
		}
		if want := min(offered, 100) * 10; served > want || served < want-10 {
			t.Errorf("offered %d/s: served %d in 10 s, want %d", offered, served, want)
		}
		if limit := 250 * time.Millisecond; longest > limit {
			t.Errorf("offered %d/s: somebody waited %v, limit %v", offered, longest, limit)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	b.ReportAllocs()
	c := sample.NewCapacity(sample.Settings{Rate: 1e6, Workers: 8})
	now := time.Unix(0, 0)
	for b.Loop() {
		now = now.Add(time.Microsecond)
		c.Admit(now)
	}
}
