package stall_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
)

func TestPool(t *testing.T) {
	t.Parallel()
	bound := func(i int) time.Duration { return 10 * ms << i }
	now := time.Unix(0, 0)
	var pool stall.Pool
	want := func(when, caller, service string, patience time.Duration) {
		t.Helper()
		if got := pool.Patience(caller, service, bound); got != patience {
			t.Errorf("%s: %v, want %v", when, got, patience)
		}
	}
	want("nothing is known", "web", "cart", 0)
	for range 9 {
		pool.Add(now, "web", "cart", []int64{100, 11})
	}
	want("999 calls", "web", "cart", 0)
	pool.Add(now, "web", "cart", []int64{100, 11, 0, 1})
	want("one of 1111 is slow", "web", "cart", 40*ms)
	want("another caller", "batch", "cart", 0)
	want("another service", "web", "stock", 0)
	pool.Add(now, "web", "cart", []int64{-5, 0, 0, 1})
	want("two are", "web", "cart", 160*ms)
	for range 8 {
		now = now.Add(time.Minute)
		pool.Add(now, "web", "cart", []int64{2000})
	}
	want("what is long ago is forgotten", "web", "cart", 30*ms)
	for i := range 20_000 {
		pool.Add(now, fmt.Sprint(i), "cart", []int64{2000})
	}
	want("no more are told apart", "19999", "cart", 0)
	pool.Forget(now.Add(time.Hour))
	want("it calls no more", "web", "cart", 0)
}

func TestKnown(t *testing.T) {
	t.Parallel()
	bound := func(i int) time.Duration { return 10 * ms << i }
	tests := map[string]struct {
		own    []int64
		pooled time.Duration
		want   time.Duration
	}{
		"nothing":                   {nil, 0, 0},
		"own alone":                 {[]int64{0, 8}, 0, 40 * ms},
		"it has just started":       {[]int64{2, 0, 0, 1}, 40 * ms, 40 * ms},
		"it makes slow calls":       {[]int64{0, 0, 0, 1000}, 40 * ms, 160 * ms},
		"it makes fast calls":       {[]int64{1000}, 40 * ms, 40 * ms},
		"it knows little by itself": {[]int64{7}, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := stall.Known(test.own, test.pooled, bound); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// A report may say anything: bounds of buckets that do not exist, and sums that wrap, are not to make a patience.
func TestPoolOfAbsurdHistograms(t *testing.T) {
	t.Parallel()
	bound := func(i int) time.Duration {
		if i > 15 {
			t.Errorf("bucket %d", i)
		}
		return ms << i
	}
	now := time.Unix(0, 0)
	var pool stall.Pool
	many := make([]int64, 64)
	for i := range many {
		many[i] = math.MaxInt64
	}
	pool.Add(now, "web", "cart", many)
	pool.Add(now, "web", "cart", many)
	if got := pool.Patience("web", "cart", bound); got < 0 || got > 2*ms<<15 {
		t.Errorf("patience %v", got)
	}
	for range 40 { // as many minutes later nothing of it is left
		now = now.Add(time.Minute)
		pool.Add(now, "web", "cart", []int64{100_000})
	}
	if got, want := pool.Patience("web", "cart", bound), pool.Patience("web", "cart", func(int) time.Duration { return ms }); got != want {
		t.Errorf("patience %v, want %v", got, want)
	}
}
