package balance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// candidates returns idle candidates of the weights.
func candidates(weights ...float64) []balance.Candidate {
	out := make([]balance.Candidate, len(weights))
	apart := 4 // as a caller has them: a cache line for each, or packed if they are many
	if len(weights) >= 256 {
		apart = 1
	}
	loads := make([]balance.Load, len(weights)*apart)
	for i, w := range weights {
		out[i] = balance.Candidate{Weight: w, Load: &loads[i*apart], Key: balance.Hash(fmt.Sprintf("10.0.%d.%d:80", i/250, i%250))}
	}
	return out
}

// TestShares checks by chi-square that picks follow the weights and that weight 0 is never picked, under every policy.
func TestShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.SampledFrom([]float64{0, 0.5, 1, 5, 10, 50, 99, 100, 150}), 1, 40).Draw(t, "weights")
		seed := rapid.Uint64().Draw(t, "seed")
		policy := rapid.SampledFrom(policies).Draw(t, "policy")
		random := rand.New(rand.NewPCG(seed, 1))
		picker := balance.NewPicker(policy, candidates(weights...), seed%1000)
		var total float64
		positive := 0
		for _, w := range weights {
			total += w
			if w > 0 {
				positive++
			}
		}
		if picker.Len() != positive {
			t.Fatalf("%d can be picked, want %d", picker.Len(), positive)
		}
		if positive == 0 {
			if i, load := picker.Pick(random.Uint64(), random.Uint64()); i != -1 || load != nil {
				t.Fatalf("picked %d of nothing", i)
			}
			return
		}
		const picks = 50_000
		counts := make([]float64, len(weights))
		for range picks {
			i, _ := picker.Pick(random.Uint64(), random.Uint64())
			counts[i]++
		}
		var chi float64
		for i, w := range weights {
			want := picks * w / total
			if w == 0 {
				if counts[i] > 0 {
					t.Fatalf("%v: weight 0 was picked %v times", policy, counts[i])
				}
				continue
			}
			if want < 100 && !policy.Hashes() { // too few for a chi-square; beyond this it is no chance either
				if counts[i] > want+8*math.Sqrt(want)+40 {
					t.Fatalf("%v: %v picks of weight %v, want %.0f", policy, counts[i], w, want)
				}
				continue
			}
			chi += (counts[i] - want) * (counts[i] - want) / want
			// Ownership of hashes is a matter of the table: within a tenth, or what chance makes of the points of a ring.
			slack := 0.1
			if policy == balance.RingHash {
				points := 64 * w / slices.Max(weights)
				if points < 8 {
					continue
				}
				slack = 5 / math.Sqrt(points)
			}
			if policy.Hashes() && math.Abs(counts[i]-want) > slack*want+8*math.Sqrt(want) {
				t.Fatalf("%v: %v picks of weight %v, want %.0f", policy, counts[i], w, want)
			}
		}
		// The bound of Laurent and Massart (2000, lemma 1) for a chance of e^-26; there are a hundred draws in a run.
		degrees := float64(positive - 1)
		if bound := degrees + 2*math.Sqrt(26*degrees) + 52; !policy.Hashes() && chi > bound {
			t.Fatalf("%v: chi-square %.1f with %v degrees of freedom, bound %.1f: %v for %v", policy, chi, degrees, bound, counts, weights)
		}
	})
}

// FuzzPolicy reads names of policies: what is read is written the same, and nothing else is read.
func FuzzPolicy(f *testing.F) {
	for _, policy := range policies {
		f.Add(policy.String())
	}
	f.Add("policy(9)")
	f.Fuzz(func(t *testing.T, name string) {
		var policy balance.Policy
		if err := policy.UnmarshalText([]byte(name)); err != nil {
			if policy != balance.Adaptive {
				t.Errorf("%q is refused, but changed the policy to %v", name, policy)
			}
			return
		}
		if text, err := policy.MarshalText(); err != nil || string(text) != name && name != "" {
			t.Errorf("%q is read as %v and written as %q, %v", name, policy, text, err)
		}
	})
}

// TestSmoothOrder holds the published order of nginx.
func TestSmoothOrder(t *testing.T) {
	t.Parallel()
	picker := balance.NewPicker(balance.RoundRobin, candidates(5, 1, 1), 0)
	var order strings.Builder
	for range 14 {
		i, _ := picker.Pick(0, 0)
		order.WriteByte("abc"[i])
	}
	if got, want := order.String(), "aabacaaaabacaa"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

// TestStride checks the order of a round that is too long to be laid out: each still gets its weight.
func TestStride(t *testing.T) {
	t.Parallel()
	weights := make([]float64, 1000)
	var total float64
	for i := range weights {
		weights[i] = float64(1 + i%97)
		total += weights[i]
	}
	picker := balance.NewPicker(balance.RoundRobin, candidates(weights...), 0)
	counts := make([]float64, len(weights))
	const picks = 1_000_000
	for range picks {
		i, _ := picker.Pick(0, 0)
		counts[i]++
	}
	for i, w := range weights {
		if want := picks * w / total; math.Abs(counts[i]-want) > 2+want/50 {
			t.Errorf("%v picks of weight %v, want %.0f", counts[i], w, want)
		}
	}
}

// TestTurns checks that a new picker goes on with the round.
func TestTurns(t *testing.T) {
	t.Parallel()
	c := candidates(1, 1, 1)
	first := balance.NewPicker(balance.RoundRobin, c, 0)
	first.Pick(0, 0)
	second := balance.NewPicker(balance.RoundRobin, c, first.Turn())
	if i, _ := second.Pick(0, 0); i != 1 {
		t.Errorf("picked %d, want 1", i)
	}
}

// TestRemap takes one in a hundred out, and adds one in a hundred.
func TestRemap(t *testing.T) {
	t.Parallel()
	for _, policy := range []balance.Policy{balance.Maglev, balance.RingHash} {
		for _, n := range []int{100, 655, 1000, 10000} {
			t.Run(fmt.Sprintf("%v/n=%d", policy, n), func(t *testing.T) {
				t.Parallel()
				weights := make([]float64, n)
				for i := range weights {
					weights[i] = 100
				}
				all := candidates(weights...)
				before := balance.NewPicker(policy, all, 0)
				random := rand.New(rand.NewPCG(1, 2))
				for _, change := range []string{"removal", "half the weight"} {
					less := append([]balance.Candidate(nil), all...)
					for i := range n / 100 {
						at := (i*100 + 37) % n
						if change == "removal" {
							less[at].Weight = 0
						} else {
							less[at].Weight = 50
						}
					}
					after := balance.NewPicker(policy, less, 0)
					moved := 0
					const hashes = 200_000
					for range hashes {
						hash := random.Uint64()
						a, _ := before.Pick(0, hash)
						b, _ := after.Pick(0, hash)
						if a == b {
							continue
						}
						moved++
						if policy == balance.RingHash && less[a].Weight == all[a].Weight {
							t.Fatalf("%s of others moved a hash from %d to %d", change, a, b)
						}
					}
					share := float64(moved) / hashes
					t.Logf("%s of 1 %%: %.2f %% remapped", change, 100*share)
					if share > 0.015 {
						t.Errorf("%s of 1 %%: %.2f %% remapped, want 1.5 at most", change, 100*share)
					}
				}
			})
		}
	}
}

// TestRingGrows adds one candidate at a time where a ring becomes a table: the newcomer takes its share, and nobody else does.
func TestRingGrows(t *testing.T) {
	t.Parallel()
	all := unequal(1026)
	random := rand.New(rand.NewPCG(1, 2))
	for n := 1021; n < len(all); n++ {
		before, after := balance.NewPicker(balance.RingHash, all[:n], 0), balance.NewPicker(balance.RingHash, all[:n+1], 0)
		const hashes = 100_000
		moved := 0
		for range hashes {
			hash := random.Uint64()
			a, _ := before.Pick(0, hash)
			b, _ := after.Pick(0, hash)
			if a == b {
				continue
			}
			if moved++; b != n {
				t.Fatalf("with the newcomer %d, %d has what %d had", n, b, a)
			}
		}
		if share := float64(moved) / hashes; share > 0.005 {
			t.Errorf("with the newcomer %d, %.2f %% moved", n, 100*share)
		}
	}
}

// TestOwnership has how even the hash policies are: the deviation of what an instance owns from what its weight says.
func TestOwnership(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy balance.Policy
		n      int
		most   float64 // deviation, of the share
	}{
		{balance.Maglev, 10, 0.01}, {balance.Maglev, 100, 0.03}, {balance.Maglev, 655, 0.05}, {balance.Maglev, 1000, 0.03}, {balance.Maglev, 10000, 0.05},
		{balance.RingHash, 100, 0.16}, {balance.RingHash, 10000, 0.16}, {balance.RingHash, 16384, 0.16}, {balance.RingHash, 17000, 0.16},
	} {
		t.Run(fmt.Sprintf("%v/n=%d", test.policy, test.n), func(t *testing.T) {
			t.Parallel()
			all := unequal(test.n)
			picker := balance.NewPicker(test.policy, all, 0)
			var total float64
			for _, c := range all {
				total += c.Weight
			}
			hashes := float64(1 << 18) // evenly over all of them: chance has no part in it
			if test.n > 655 {
				hashes = 1 << 21
			}
			counts := make([]float64, len(all))
			for i := range uint64(hashes) {
				owner, _ := picker.Pick(0, uint64((float64(i)+0.5)/hashes*(1<<63))<<1)
				counts[owner]++
			}
			var squares float64
			for i, c := range all {
				off := counts[i]/(hashes*c.Weight/total) - 1
				squares += off * off
			}
			deviation := math.Sqrt(squares / float64(len(all)))
			t.Logf("deviation %.1f %%", 100*deviation)
			if deviation > test.most {
				t.Errorf("ownership deviates by %.1f %%, want %.0f at most", 100*deviation, 100*test.most)
			}
		})
	}
}

// TestBoundedLoad sends all calls with few hashes and never ends one: nobody gets more than 1.25 means.
func TestBoundedLoad(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]balance.Policy{balance.Maglev, balance.RingHash}).Draw(t, "policy")
		weights := rapid.SliceOfN(rapid.SampledFrom([]float64{50, 100, 200}), 2, 60).Draw(t, "weights")
		hashes := rapid.SliceOfN(rapid.Uint64(), 1, 5).Draw(t, "hashes")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		picker := balance.NewPicker(policy, candidates(weights...), 0)
		var total float64
		for _, w := range weights {
			total += w
		}
		for calls := range 50 * len(weights) {
			i, load := picker.Pick(random.Uint64(), hashes[calls%len(hashes)])
			slack := 0.0
			if len(weights) > 16 {
				slack = 2 // the mean is sampled
			}
			if bound := math.Ceil(1.25*float64(calls+1)*weights[i]/total) + slack; float64(load.Begin()) > bound {
				t.Fatalf("%v: %d calls in flight at weight %v after %d calls, bound %v", policy, load.InFlight(), weights[i], calls, bound)
			}
		}
	})
}

// TestLoad walks through what counts as a call in flight.
func TestLoad(t *testing.T) {
	t.Parallel()
	load := new(balance.Load)
	want := func(what string, inFlight, ghosts int, latency time.Duration) {
		t.Helper()
		if load.InFlight() != inFlight || load.Ghosts() != ghosts || load.Latency() != latency {
			t.Errorf("%s: %d in flight, %d ghosts, latency %v; want %d, %d, %v", what, load.InFlight(), load.Ghosts(), load.Latency(), inFlight, ghosts, latency)
		}
	}
	load.Begin()
	load.Begin()
	want("two began", 2, 0, 0)
	load.Succeeded(time.Millisecond)
	want("one succeeded", 1, 0, time.Millisecond)
	load.Failed(1)
	want("one failed", 0, 1, time.Millisecond)
	load.Age(true, 0)
	want("time went by", 0, 0, time.Millisecond)
	load.Begin()
	load.Succeeded(9 * time.Millisecond)
	want("another succeeded, slower", 0, 0, 2*time.Millisecond)
	load.Age(false, 0)
	want("no call ended", 0, 0, 1800*time.Microsecond)
	load.Age(false, 5*time.Millisecond)
	want("no call ended, but it is fast", 0, 0, 1800*time.Microsecond)
	load.Failed(1)
	if row := load.Failed(3); row != 4 {
		t.Errorf("the row of failures weighs %d, want 4", row)
	}
	load.Forgive()
	load.Begin()
	if row := load.Failed(3); row != 3 {
		t.Errorf("the row of failures weighs %d, want 3", row)
	}
}

// TestConcurrent has several callers at once on each policy, while time passes: in the end no call is in flight.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		c := candidates(100, 50, 100, 10, 0, 100, 100, 100, 100, 100, 100, 100)
		picker := balance.NewPicker(policy, c, 0)
		var callers sync.WaitGroup
		for caller := range 4 {
			callers.Go(func() {
				random := rand.New(rand.NewPCG(uint64(caller), 5))
				for call := range 1000 {
					_, load := picker.Pick(random.Uint64(), random.Uint64())
					load.Begin()
					switch call % 8 {
					case 0:
						load.Failed(1)
					case 1:
						load.End()
					case 2:
						load.Age(false, time.Microsecond)
						fallthrough
					default:
						load.Succeeded(time.Duration(1+random.IntN(5)) * time.Millisecond)
					}
				}
			})
		}
		callers.Wait()
		for i := range c {
			if n := c[i].Load.InFlight(); n != 0 {
				t.Errorf("%v: %d calls in flight at %d in the end", policy, n, i)
			}
		}
	}
}

// TestSinkhole has one of ten fail at once each time: it must not attract calls by looking idle.
func TestSinkhole(t *testing.T) {
	t.Parallel()
	for _, policy := range []balance.Policy{balance.Adaptive, balance.HotCold, balance.LeastRequest} {
		c := candidates(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
		picker := balance.NewPicker(policy, c, 0)
		random := rand.New(rand.NewPCG(3, 4))
		var busy []*balance.Load // oldest first; 20 calls are in flight at a time
		failed := 0
		const calls = 10_000
		for range calls {
			i, load := picker.Pick(random.Uint64(), 0)
			load.Begin()
			if i == 0 {
				load.Failed(1)
				failed++
				continue
			}
			if busy = append(busy, load); len(busy) > 20 {
				busy[0].Succeeded(time.Millisecond)
				busy = busy[1:]
			}
		}
		if failed > calls/10 {
			t.Errorf("%v: the instance that fails at once got %d of %d calls, more than its share", policy, failed, calls)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range []balance.Policy{balance.Adaptive, balance.HotCold, balance.RoundRobin, balance.WeightedRandom, balance.LeastRequest} {
		for _, inFlight := range []int{0, 3} {
			for _, n := range []int{10, 1000, 10000} {
				b.Run(fmt.Sprintf("%v/inflight=%d/n=%d", policy, inFlight, n), func(b *testing.B) { benchmarkPick(b, policy, n, inFlight) })
			}
		}
	}
}

// BenchmarkHashPick is the pick alone. It has a budget of 60 ns and no allocation.
func BenchmarkHashPick(b *testing.B) {
	for _, policy := range []balance.Policy{balance.Maglev, balance.RingHash} {
		for _, n := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%v/n=%d", policy, n), func(b *testing.B) {
				picker := balance.NewPicker(policy, unequal(n), 0)
				defer measure(b)()
				b.RunParallel(func(pb *testing.PB) {
					for hash := rand.Uint64(); pb.Next(); hash += 0x9e3779b97f4a7c15 {
						picker.Pick(hash, hash)
					}
				})
			})
		}
	}
}

// unequal are n idle candidates of weights 50 to 149.
func unequal(n int) []balance.Candidate {
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = float64(50 + i%100)
	}
	return candidates(weights...)
}

// benchmarkPick is a pick, and its call's beginning and end.
func benchmarkPick(b *testing.B, policy balance.Policy, n, inFlight int) {
	c := unequal(n)
	for i := range c {
		for range inFlight {
			c[i].Load.Begin()
		}
	}
	picker := balance.NewPicker(policy, c, 0)
	defer measure(b)()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			random := rand.Uint64()
			_, load := picker.Pick(random, random*0x9e3779b97f4a7c15)
			load.Begin()
			load.Succeeded(time.Millisecond)
		}
	})
}

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
