package rule_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

func instances(n int) []rule.Member {
	out := make([]rule.Member, n)
	for i := range out {
		out[i].Addr = fmt.Sprintf("10.%d.%d.1:80", i/250, i%250)
	}
	return out
}

// subset returns whom the process of a seed calls.
func subset(seed uint64, size int, members []rule.Member, loads []rule.Load) (addrs []string) {
	table := rule.Compile(rule.Rules{}, rule.Caller{Seed: seed}, rule.Settings{Subset: size})
	layout := table.Layout(table.Plain(), members)
	for _, pick := range layout.Weigh(loads).Picks {
		for _, i := range pick.Indexes {
			addrs = append(addrs, members[i].Addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// How many processes call an instance has the binomial distribution: with 2,000 processes of 20 among 200 the mean is
// 200 and the deviation 13.4, so that none is called by more than 1.3 or fewer than 0.7 times the mean (4.5 deviations).
func TestSubsetsAreEven(t *testing.T) {
	t.Parallel()
	const processes, size, n = 2000, 20, 200
	members, loads := instances(n), loads(n)
	calls := make(map[string]int)
	random := rand.New(rand.NewPCG(1, 2))
	for range processes {
		got := subset(random.Uint64(), size, members, loads)
		if len(got) != size {
			t.Fatalf("a subset of %d, want %d", len(got), size)
		}
		for _, addr := range got {
			calls[addr]++
		}
	}
	mean := float64(processes*size) / n
	least, most, squares := math.Inf(1), 0.0, 0.0
	for _, m := range members {
		k := float64(calls[m.Addr])
		least, most = min(least, k), max(most, k)
		squares += (k - mean) * (k - mean)
	}
	t.Logf("called by %.0f to %.0f processes, mean %.0f, deviation %.1f", least, most, mean, math.Sqrt(squares/n))
	if most > 1.3*mean || least < 0.7*mean {
		t.Errorf("called by %.0f to %.0f processes; want 0.7 to 1.3 times %.0f", least, most, mean)
	}
}

// An instance that comes, goes or is down changes a subset by at most one member.
func TestSubsetsChurnLittle(t *testing.T) {
	t.Parallel()
	const size, n = 20, 200
	members := instances(n)
	random := rand.New(rand.NewPCG(3, 4))
	var changed int
	for range 500 {
		seed, gone := random.Uint64(), random.IntN(n)
		before := subset(seed, size, members, loads(n))
		less := slices.Delete(slices.Clone(members), gone, gone+1)
		for what, after := range map[string][]string{
			"gone": subset(seed, size, less, loads(n-1)),
			"down": subset(seed, size, members, loads(n, gone)),
		} {
			new := 0
			for _, addr := range after {
				if !slices.Contains(before, addr) {
					new++
				}
			}
			if wasIn := slices.Contains(before, members[gone].Addr); new > 1 || new == 1 != wasIn || len(after) != size {
				t.Fatalf("%s: %d new of %d; the instance was in: %t", what, new, len(after), wasIn)
			}
			changed += new
		}
	}
	if got, want := float64(changed)/1000, float64(size)/n; got > 1.5*want {
		t.Errorf("%.3f of the processes changed, want about %.3f", got, want)
	}
}

// With localities, each level has its subset.
func TestSubsetPerLevel(t *testing.T) {
	t.Parallel()
	members := fleet()
	table := rule.Compile(rule.Rules{}, rule.Caller{Place: here}, rule.Settings{Subset: 1, Locality: rule.Locality{Prefer: "site"}})
	layout := table.Layout(table.Plain(), members)
	for down, want := range map[int]int{0: 1, 4: 1, 3: 2} { // instances of the site that are down; instances called
		var gone []int
		for i := range down {
			gone = append(gone, i)
		}
		if got := layout.Weigh(loads(len(members), gone...)).Picks[0].Indexes; len(got) != want {
			t.Errorf("%d down: %d instances are called, want %d", down, len(got), want)
		}
	}
}

func BenchmarkWeigh(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			table := rule.Compile(rule.Rules{}, rule.Caller{Place: here}, rule.Settings{Subset: 50, Locality: rule.Locality{Prefer: "site"}})
			layout := table.Layout(table.Plain(), instances(n))
			loads := loads(n)
			b.ReportAllocs()
			for b.Loop() {
				layout.Weigh(loads)
			}
		})
	}
}
