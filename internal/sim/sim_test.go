package sim_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// counter is a scenario: a sender numbers its messages and a receiver wants each once, in order.
func counter(dedup bool) (sim.Scenario, *[]string) {
	var log []string
	return func(w *sim.World) func() error {
		log = nil
		next, last := 0, 0
		w.OnCrash("sender", nil, func() { log = append(log, "sender is back") })
		w.Every("", 100*time.Millisecond, func() {
			if !w.Up("sender") {
				return
			}
			next++
			n := next
			w.Send("sender", "receiver", func() {
				log = append(log, fmt.Sprint(w.Now().UnixMilli(), " ", n))
				if dedup && n <= last {
					return
				}
				if n <= last {
					w.Fail(fmt.Errorf("message %d came after %d", n, last))
				}
				last = n
			})
		})
		return nil
	}, &log
}

func TestSameSeedSameRun(t *testing.T) {
	t.Parallel()
	config := sim.Config{Nodes: []string{"sender", "receiver"}}
	scenario, log := counter(true)
	for seed := range uint64(20) {
		plan := sim.NewPlan(config, seed)
		sim.Play(config, plan, scenario)
		first := *log
		sim.Play(config, plan, scenario)
		if diff := cmp.Diff(first, *log); diff != "" || len(first) == 0 {
			t.Fatalf("seed %d ran differently (-first +second):\n%s", seed, diff)
		}
	}
}

func TestExploreFindsAndShrinks(t *testing.T) {
	t.Parallel()
	config := sim.Config{Nodes: []string{"sender", "receiver"}}
	scenario, _ := counter(true)
	if failure := sim.Explore(config, scenario); failure != nil {
		t.Fatalf("a receiver that deduplicates failed: %v", failure)
	}
	scenario, _ = counter(false)
	failure := sim.Explore(config, scenario)
	if failure == nil {
		t.Fatal("a receiver that does not deduplicate passed")
	}
	if len(failure.Plan.Faults) != 1 {
		t.Errorf("shrunk to %d faults, want the one that matters:\n%v", len(failure.Plan.Faults), failure)
	}
	if !strings.Contains(failure.Error(), "seed ") || errors.Unwrap(failure) == nil {
		t.Errorf("the failure does not tell its seed: %v", failure)
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	config := sim.Config{Nodes: []string{"a"}, Duration: time.Minute}
	plan := sim.Plan{Seed: 1, Faults: []sim.Fault{{Kind: sim.Crash, Node: "a", At: 10 * time.Second, For: 5 * time.Second}}}
	var got []string
	failure := sim.Play(config, plan, func(w *sim.World) func() error {
		note := func(what string) { got = append(got, fmt.Sprint(what, " ", w.Now().Second())) }
		w.After("a", 9*time.Second, func() { note("before") })
		w.After("a", 12*time.Second, func() { note("while down") })
		w.After("a", 20*time.Second, func() { note("planned in an earlier life") })
		w.OnCrash("a", func() { note("crash") }, func() {
			note("restart")
			w.After("a", time.Second, func() { note("after") })
		})
		return nil
	})
	if failure != nil {
		t.Fatal(failure)
	}
	if diff := cmp.Diff([]string{"before 9", "crash 10", "restart 15", "after 16"}, got); diff != "" {
		t.Error(diff)
	}
}
