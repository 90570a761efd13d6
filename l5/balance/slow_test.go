// One goroutine plays the model, as in tail_test.go.

//go:build !race

package balance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// TestGray makes one of ten instances 20 times slower, without an error, and heals it half a minute later. Two seconds on
// it gets less than one per cent of its fair share, and ten seconds after it healed it has its share back: for callers that would
// send it a hundred calls a second. One that would send it twenty cannot have both without a probe that knows the latency of
// a call: a look every few seconds is more than one in a hundred of its calls.
func TestGray(t *testing.T) {
	t.Parallel()
	const (
		replicas, gray = 10, 3
		from, until    = 10 * time.Second, 40 * time.Second
		end            = 60 * time.Second
	)
	var table strings.Builder
	fmt.Fprintf(&table, "one of %d instances 20 times slower for %v: its picks in per cent of its fair share\n", replicas, until-from)
	fmt.Fprintf(&table, "%-28s %9s %14s %16s %14s\n", "calls/s each, callers", "before", "2 s on, to end", "back at 90 %, s", "10 s healed")
	for _, rate := range []float64{20, 100, 400} {
		for _, callers := range []int{1, 4} {
			setup := testbed{
				replicas: replicas, callers: callers, rate: rate * replicas * float64(callers), work: 5 * time.Millisecond, wire: 100 * time.Microsecond, quota: 1,
				parallel: true, slow: slices.Repeat([]float64{1}, replicas), slowFrom: from, slowUntil: until, lasts: end, seed: 1,
			}
			setup.slow[gray] = 20
			var all, picked [end / time.Second]float64 // by second
			run(setup, func(b *bed, caller int) strategy {
				b.onPick = func(replica int) {
					all[b.now/time.Second]++
					if replica == gray {
						picked[b.now/time.Second]++
					}
				}
				return newOurs(balance.Adaptive)(b, caller)
			})
			share := func(from, until time.Duration) float64 {
				var a, p float64
				for i := from / time.Second; i < until/time.Second; i++ {
					a, p = a+all[i], p+picked[i]
				}
				return 100 * p * replicas / a
			}
			back := -1
			for i := until / time.Second; i < end/time.Second && back < 0; i++ {
				if share(i*time.Second, (i+1)*time.Second) >= 90 {
					back = int(i - until/time.Second + 1)
				}
			}
			before, during, after := share(0, from), share(from+2*time.Second, until), share(until+10*time.Second, end)
			fmt.Fprintf(&table, "%12.0f %15d %9.1f %14.2f %16d %14.1f\n", rate, callers, before, during, back, after)
			if rate >= 100 && (during >= 1 || back < 0 || back > 10 || after < 90) {
				t.Errorf("%v calls/s, %d callers: %.2f %% of its fair share while slow, want less than 1; back after %d s, want 10 at most; then %.1f %%", rate, callers, during, back, after)
			}
		}
	}
	t.Log("\n" + table.String())
	recorded(t, "testdata/gray.table", table.String())
}

// TestTwoOfFour makes two of four instances slower by 5 ms, where calls take 0.3 ms: the case in which two choices have a p99 25 times
// that of four (brpc#3340). Ours stays within 1.3 times that of the choice that knows all.
func TestTwoOfFour(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	fmt.Fprintf(&table, "two of four slower by 5 ms: p50 and p99 in ms\n")
	setup := testbed{
		replicas: 4, callers: 4, rate: 2000, work: 300 * time.Microsecond, wire: 20 * time.Microsecond, quota: 1,
		slow: []float64{1, 18, 1, 18}, parallel: true, lasts: 30 * time.Second, seed: 1,
	}
	p99 := map[string]time.Duration{}
	for _, s := range []struct {
		name   string
		create func(*bed, int) strategy
	}{
		{"all-knowing", func(b *bed, _ int) strategy { return allKnowing{b} }},
		{"two by RIF", func(b *bed, _ int) strategy { return twoByRIF{b} }},
		{"adaptive", newOurs(balance.Adaptive)},
	} {
		b := run(setup, s.create)
		p99[s.name] = b.quantile(0.99)
		fmt.Fprintf(&table, "%-14s %6.2f %6.2f\n", s.name, b.quantile(0.5).Seconds()*1000, b.quantile(0.99).Seconds()*1000)
	}
	t.Log("\n" + table.String())
	if limit := p99["all-knowing"] * 13 / 10; p99["adaptive"] > limit {
		t.Errorf("adaptive has p99 %v, want at most %v: 1.3 times that of the choice that knows all", p99["adaptive"], limit)
	}
	recorded(t, "testdata/two-of-four.table", table.String())
}

// allKnowing takes the replica where the call will end first.
type allKnowing struct{ b *bed }

func (s allKnowing) pick(send func(int)) {
	best := 0
	for i, server := range s.b.servers {
		if server.backlog() < s.b.servers[best].backlog() {
			best = i
		}
	}
	send(best)
}
func (s allKnowing) done(int, time.Duration) {}
