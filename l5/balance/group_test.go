package balance_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// TestGroupProperties drives a group with events at random. After each step a weight is the product of its factors, what is taken
// away on this caller's own evidence is within the bound (I2), something can be picked, and who is down and in use is so by a
// panic that says so (I1).
func TestGroupProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		group := balance.NewGroup(balance.Config{EjectMax: 8 * time.Second})
		now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		addr := rapid.Map(rapid.IntRange(0, 5), func(i int) string { return fmt.Sprintf("i%d", i) })
		suspect := map[string]bool{}
		step := func(e balance.Event) {
			group.Step(now, e)
			var total, taken, weight float64
			for _, s := range group.Statuses() {
				f := s.Factors
				if s.Weight != f.Weight() {
					t.Fatalf("%s: weight %v is not the product of %+v", s.Addr, s.Weight, f)
				}
				base := f.Static * f.Gray
				total += base
				weight += s.Weight
				if !suspect[s.Addr] && s.Health != balance.Trial {
					taken += base * (1 - f.Latency*f.Health)
				}
				if (s.Health == balance.Ejected || s.Health == balance.Probing) && s.Weight > 0 && group.Panic() == "" {
					t.Fatalf("I1: %s is %v and has weight %v, and no word of panic", s.Addr, s.Health, s.Weight)
				}
			}
			if taken > total/2+1e-6 {
				t.Fatalf("I2: %v of %v taken away", taken, total)
			}
			if total > 0 && weight <= 0 {
				t.Fatal("nothing to pick from although there are weights")
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"members": func(t *rapid.T) {
				var members balance.Members
				clear(suspect)
				for i := range rapid.IntRange(0, 6).Draw(t, "count") {
					m := balance.Member{
						Addr: fmt.Sprintf("i%d", i), Weight: rapid.SampledFrom([]float64{0, 10, 100}).Draw(t, "weight"),
						Gray: rapid.SampledFrom([]float64{0, 0.1, 1}).Draw(t, "gray"), Suspect: rapid.Bool().Draw(t, "suspect"),
					}
					suspect[m.Addr] = m.Suspect
					members = append(members, m)
				}
				step(members)
			},
			"struck": func(t *rapid.T) { step(balance.Struck{Addr: addr.Draw(t, "addr"), Evidence: "refused"}) },
			"probed": func(t *rapid.T) { step(balance.Probed{Addr: addr.Draw(t, "addr"), OK: rapid.Bool().Draw(t, "ok")}) },
			"capacity": func(t *rapid.T) {
				step(balance.Capacity{Addr: addr.Draw(t, "addr"), Factor: rapid.Float64().Draw(t, "factor")})
			},
			"nan": func(t *rapid.T) { step(balance.Capacity{Addr: addr.Draw(t, "addr"), Factor: math.NaN()}) },
			"window": func(t *rapid.T) {
				var window balance.Window
				for range rapid.IntRange(0, 6).Draw(t, "samples") {
					n := rapid.Int64Range(0, 100).Draw(t, "successes")
					window = append(window, balance.Sample{
						Addr: addr.Draw(t, "addr"), Successes: n, Failures: rapid.Int64Range(0, 50).Draw(t, "failures"),
						LatencySum: time.Duration(n) * rapid.SampledFrom([]time.Duration{time.Millisecond, 5 * time.Millisecond, time.Second}).Draw(t, "latency"),
						InFlight:   rapid.Int64Range(0, 3).Draw(t, "in flight"),
					})
				}
				step(window)
			},
			"time": func(t *rapid.T) {
				now = now.Add(rapid.SampledFrom([]time.Duration{-time.Second, 0, 250 * time.Millisecond, 2 * time.Second, time.Minute}).Draw(t, "pause"))
				step(balance.Tick{})
			},
		})
	})
}
