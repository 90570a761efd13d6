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
	"github.com/zhiyun-ops/zhiyun/l5/limit"
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
func simulate(seed uint64, g guards, of weather) (f *fleet) {
	sim.Play(sim.Config{Nodes: []string{"all"}, Duration: of.lasts}, sim.Plan{Seed: seed}, func(w *sim.World) func() error {
		f = newFleet(w, g, of)
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

// recovered is how long after a time all seconds have as many good calls as 95 % of what was asked for; -1: never.
func (f *fleet) recovered(after time.Duration) time.Duration {
	first := int(after / (100 * time.Millisecond))
	last := len(f.good) - 10
	for i := last; i >= first; i-- {
		good, asked := 0, 0
		for j := range 10 {
			good += f.good[i+j-1]
			asked += f.asked[i+j-1]
		}
		if float64(good) < 0.95*float64(asked) {
			if i == last {
				return -1
			}
			return time.Duration(i+1-first) * 100 * time.Millisecond
		}
	}
	return 0
}

// The times of an overload.
const from, to, end = 4 * time.Second, 24 * time.Second, 30 * time.Second

// overload is load times the capacity between usual loads.
func overload(load float64) weather {
	return weather{rate: during(from, to, load*capacity, usual), lasts: end}
}

// all is every guard on.
var all = guards{client: true, server: true, retries: 3, budget: true}

// TestOverload plays load at 2 and 5 times the capacity for 20 s between usual ones, and records what came of it.
func TestOverload(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	fmt.Fprintf(&out, "%-22s %5s %9s %10s %12s %9s %9s\n", "guards", "load", "goodput", "first 3 s", "recovered in", "rejected", "refused")
	for _, row := range []struct {
		name   string
		guards guards
		hold   bool
	}{
		{"none, no retries", guards{}, false},
		{"none, 3 retries", guards{retries: 3}, false},
		{"caller's", guards{client: true, retries: 3, budget: true}, true},
		{"server's, 3 retries", guards{server: true, retries: 3}, true},
		{"both", all, true},
	} {
		for _, load := range []float64{0.9, 2, 5} {
			if !row.hold && load < 1 {
				continue
			}
			f := simulate(1, row.guards, overload(load))
			fmt.Fprintf(&out, "%-22s %4.1fx %7.1f %% %8.1f %% %12s %9d %9d\n", row.name, load,
				100*f.goodput(from, to), 100*f.goodput(from, from+3*time.Second), f.recoveredIn(to), f.turned, f.refused)
			err := f.held(load)
			if row.hold && err != nil {
				t.Errorf("%s at %gx: %v", row.name, load, err)
			}
			if !row.hold && load > 1 && err == nil {
				t.Errorf("%s at %gx: it holds without guards: this overload proves nothing", row.name, load)
			}
		}
	}
	record(t, "testdata/overload.table", out.String())
}

// held says what is wrong with how an overload was borne.
func (f *fleet) held(load float64) error {
	if good, want := f.goodput(from, to), 0.9*min(load, 1); good < want {
		return fmt.Errorf("goodput is %.1f %% of the capacity, want %.0f %%", 100*good, 100*want)
	}
	if recovered := f.recovered(to); recovered < 0 || recovered > 3*time.Second {
		return fmt.Errorf("recovered in %v, want 3 s", f.recoveredIn(to))
	}
	return nil
}

func (f *fleet) recoveredIn(after time.Duration) string {
	if d := f.recovered(after); d >= 0 {
		return d.String()
	}
	return fmt.Sprintf("> %v", f.lasts-after)
}

// TestOverloadPriorities: under five times the load every critical call is made, and hardly a sheddable one.
func TestOverloadPriorities(t *testing.T) {
	t.Parallel()
	f := simulate(2, all, overload(5))
	var out strings.Builder
	for _, p := range []limit.Priority{limit.Critical, limit.Normal, limit.Sheddable} {
		fmt.Fprintf(&out, "%-10s %7d asked during the overload, %5.1f %% succeeded\n", p, f.wanted[p], 100*float64(f.served[p])/float64(f.wanted[p]))
	}
	record(t, "testdata/priorities.table", out.String())
	if share := float64(f.served[limit.Critical]) / float64(f.wanted[limit.Critical]); share < 0.95 {
		t.Errorf("%.1f %% of the critical calls succeeded", 100*share)
	}
}

// TestOverloadStorm: three seconds at five times the load set off a storm of retries that feeds itself, unless guarded.
func TestOverloadStorm(t *testing.T) {
	t.Parallel()
	const trigger = 3 * time.Second
	storm := weather{rate: during(from, from+trigger, 5*capacity, usual), lasts: 60 * time.Second}
	var out strings.Builder
	fmt.Fprintf(&out, "%-22s %12s %30s\n", "guards", "recovered in", "goodput in the last ten seconds")
	for _, row := range []struct {
		name   string
		guards guards
		hold   bool
	}{
		{"none, no retries", guards{}, true},
		{"none, 3 retries", guards{retries: 3}, false},
		{"budget alone", guards{retries: 3, budget: true}, true},
		{"both", all, true},
	} {
		f := simulate(3, row.guards, storm)
		last := f.goodput(50*time.Second, 60*time.Second)
		fmt.Fprintf(&out, "%-22s %12s %28.1f %%\n", row.name, f.recoveredIn(from+trigger), 100*last)
		if sticks := last < 0.65; sticks == row.hold {
			t.Errorf("%s: goodput is %.1f %% of the capacity at the end, asked for are 70 %%", row.name, 100*last)
		}
		if recovered := f.recovered(from + trigger); row.guards == all && (recovered < 0 || recovered > 3*time.Second) {
			t.Errorf("%s: recovered in %s", row.name, f.recoveredIn(from+trigger))
		}
	}
	record(t, "testdata/storm.table", out.String())
}

// incident is an hour in which everything takes twenty times as long, 400 ms where 250 ms are healthy, so that half of what
// is asked for is too much. Callers are few and have no help from the servers.
func incident(plant string, seed uint64) (f *fleet, held error) {
	const hour = from + time.Hour
	f = simulate(seed, guards{client: true, retries: 1, budget: true, plant: plant}, weather{
		clients: 4, rate: constant(160), slow: during(from, hour, 20, 1), lasts: hour + 10*time.Second,
		watch: []time.Duration{from, hour},
	})
	before, after := f.seen[0], f.seen[1]
	if after.Baseline > 2*before.Baseline {
		return f, fmt.Errorf("the baseline drifted from %v to %v", before.Baseline, after.Baseline)
	}
	if recovered := f.recovered(hour); recovered < 0 || recovered > 3*time.Second {
		return f, fmt.Errorf("recovered in %s", f.recoveredIn(hour))
	}
	return f, nil
}

// TestOverloadIncident: after an hour of trouble the baseline is where it was.
func TestOverloadIncident(t *testing.T) {
	t.Parallel()
	f, err := incident("", 4)
	if err != nil {
		t.Error(err)
	}
	record(t, "testdata/incident.table", fmt.Sprintf("before:         %s\nafter an hour:  %s\nrecovered in %s\n",
		f.seen[0].Reason(), f.seen[1].Reason(), f.recoveredIn(from+time.Hour)))
}

// siege is a minute at twice the load, in which callers keep their own limits.
func siege(plant string, seed uint64) error {
	g := all
	g.plant = plant
	f := simulate(seed, g, weather{rate: during(0, from, usual, 2*capacity), lasts: time.Minute})
	for i, s := range f.servers {
		if state := s.limiter.State(); state.Baseline > 2*work {
			return fmt.Errorf("server %d: the baseline drifted to %v, a call takes %v", i, state.Baseline, work)
		}
	}
	return nil
}

// TestOverloadSiege: under a queue that never ends the baseline stays what it is without one.
func TestOverloadSiege(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		if err := siege("", 30+seed); err != nil {
			t.Errorf("seed %d: %v", 30+seed, err)
		}
	}
}

// outage is a service that rejects everything for a while.
func outage(plant string, seed uint64) error {
	f := simulate(seed, guards{client: true, plant: plant}, weather{
		rate: constant(usual), down: func(at time.Duration) bool { return at >= from && at < to }, lasts: end,
	})
	if recovered := f.recovered(to); recovered < 0 || recovered > 3*time.Second {
		return fmt.Errorf("recovered in %s", f.recoveredIn(to))
	}
	return nil
}

// TestOverloadOutage: what callers refuse themselves does not keep their throttles shut.
func TestOverloadOutage(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		if err := outage("", 10+seed); err != nil {
			t.Errorf("seed %d: %v", 10+seed, err)
		}
	}
}

// TestOverloadFindsPlantedBugs: a simulation that cannot fail proves nothing.
func TestOverloadFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for bug, run := range map[string]func(bug string, seed uint64) error{
		"refusals are failures": outage,
		"no probe flow":         outage,
		"trouble is learned": func(bug string, seed uint64) error {
			_, err := incident(bug, seed)
			return err
		},
		"a queue is learned": siege,
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			const seeds = 10
			for seed := range uint64(seeds) {
				if err := run(bug, 20+seed); err != nil {
					t.Logf("found with seed %d: %v", 20+seed, err)
					return
				}
			}
			t.Errorf("not found in %d seeds", seeds)
		})
	}
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
