package limit_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

var update = flag.Bool("update", false, "record the outcomes in testdata anew")

func constant(f float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return f }
}

// during is f between from and to, and otherwise rest.
func during(from, to time.Duration, f, rest float64) func(time.Duration) float64 {
	return func(at time.Duration) float64 {
		if at >= from && at < to {
			return f
		}
		return rest
	}
}

const usual = 0.7 * capacity

// simulate plays a fleet for a while.
func simulate(seed uint64, g guards, rate, slow func(time.Duration) float64, lasts time.Duration) (f *fleet) {
	sim.Play(sim.Config{Nodes: []string{"all"}, Duration: lasts}, sim.Plan{Seed: seed}, func(w *sim.World) func() error {
		f = newFleet(w, g, rate, slow, lasts)
		return nil
	})
	return f
}

// goodput is the share of the capacity that was put to use from one time to another.
func (f *fleet) goodput(from, to time.Duration) float64 {
	n := 0
	for i := from / (100 * time.Millisecond); i < to/(100*time.Millisecond); i++ {
		n += f.good[i]
	}
	return float64(n) / capacity / (to - from).Seconds()
}

// recovered is how long after a time all seconds have as many good calls as 97 % of what was asked for; -1: never.
func (f *fleet) recovered(after time.Duration) time.Duration {
	first := int(after / (100 * time.Millisecond))
	last := len(f.good) - 10
	for i := last; i >= first; i-- {
		good, asked := 0, 0
		for j := range 10 {
			good += f.good[i+j-1]
			asked += f.asked[i+j-1]
		}
		if float64(good) < 0.97*float64(asked) {
			if i == last {
				return -1
			}
			return time.Duration(i+1-first) * 100 * time.Millisecond
		}
	}
	return 0
}

// TestOverload plays load at 2 and 5 times the capacity for 15 s between usual ones, and records what came of it.
func TestOverload(t *testing.T) {
	t.Parallel()
	const from, to, end = 5 * time.Second, 20 * time.Second, 30 * time.Second
	var out strings.Builder
	fmt.Fprintf(&out, "%-34s %5s %9s %9s %10s %9s %9s\n", "guards", "load", "goodput", "first 3 s", "recovered", "rejected", "refused")
	for _, row := range []struct {
		name   string
		guards guards
		hold   bool
	}{
		{"none, no retries", guards{}, false},
		{"none, 3 retries", guards{retries: 3}, false},
		{"caller's", guards{client: true, retries: 3, budget: true}, true},
		{"server's, 3 retries", guards{server: true, retries: 3}, true},
		{"both", guards{client: true, server: true, retries: 3, budget: true}, true},
	} {
		for _, load := range []float64{0.9, 2, 5} {
			f := simulate(1, row.guards, during(from, to, load*capacity, usual), constant(1), end)
			good, first, recovered := f.goodput(from, to), f.goodput(from, from+3*time.Second), f.recovered(to)
			back := recovered.String()
			if recovered < 0 {
				back = "never"
			}
			fmt.Fprintf(&out, "%-34s %4.1fx %7.1f %% %7.1f %% %10s %9d %9d\n", row.name, load, 100*good, 100*first, back, f.turned, f.refused)
			if want := min(load, 1) * 0.9; row.hold && good < want {
				t.Errorf("%s at %gx: goodput is %.1f %% of the capacity, want %.0f %%", row.name, load, 100*good, 100*want)
			}
			if row.hold && (recovered < 0 || recovered > 3*time.Second) {
				t.Errorf("%s at %gx: recovered %v after the load fell, want 3 s", row.name, load, recovered)
			}
			if !row.hold && load > 1 && good > 0.9 {
				t.Errorf("%s at %gx: goodput is %.1f %% without guards: this overload proves nothing", row.name, load, 100*good)
			}
		}
	}
	record(t, "testdata/overload.table", out.String())
}

// record compares got with what is recorded in file.
func record(t *testing.T, file, got string) {
	t.Helper()
	t.Log("\n" + got)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-recorded +now; -update records anew):\n%s", file, diff)
	}
}
