package flow

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var admitEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func asking(a *admission, lane string, priority int8, tool, device, module string, local bool) *ticket {
	t := &ticket{lane: lane, priority: priority}
	a.bind(t, tool, device, module, local)
	return t
}

// One with a single attempt is not held up by one with ten thousand.
func TestAdmissionTakesTurns(t *testing.T) {
	t.Parallel()
	a := newAdmission(1, Limits{})
	running := asking(a, "first", 5, "t", "", "", true)
	if !a.ask(admitEpoch, running) {
		t.Fatal("the first has to wait")
	}
	for range 10_000 {
		a.ask(admitEpoch, asking(a, "many", 5, "t", "", "", true))
	}
	one := asking(a, "one", 5, "t", "", "", true)
	a.ask(admitEpoch, one)
	for turn := 1; ; turn++ {
		a.granted = nil
		a.release(admitEpoch, running)
		if running = a.granted[0]; running == one {
			if turn > 2 {
				t.Errorf("it was served in turn %d, want the second at the latest", turn)
			}
			return
		}
	}
}

// Greater priorities go first, and the least one still has its turn within the bound that is stated.
func TestAdmissionAges(t *testing.T) {
	t.Parallel()
	a := newAdmission(1, Limits{})
	running := asking(a, "x", 9, "t", "", "", true)
	a.ask(admitEpoch, running)
	lanes := []string{"a", "b", "c"}
	for _, lane := range lanes {
		a.ask(admitEpoch, asking(a, lane, 0, "t", "", "", true))
	}
	waiting := map[string]bool{"a": true, "b": true, "c": true}
	for i := range 16 * 11 * len(lanes) {
		for level := range int8(9) { // there are always others of all priorities
			a.ask(admitEpoch, asking(a, fmt.Sprint("busy", i, level), level+1, "t", "", "", true))
		}
		a.granted = nil
		a.release(admitEpoch, running)
		running = a.granted[0]
		if i == 0 && running.priority != 9 {
			t.Errorf("priority %d was served first", running.priority)
		}
		delete(waiting, running.lane)
	}
	if len(waiting) > 0 {
		t.Errorf("%v still wait", waiting)
	}
}

func TestAdmissionRate(t *testing.T) {
	t.Parallel()
	a := newAdmission(100, Limits{Tools: map[string]ToolLimit{"t": {Rate: 2, Burst: 3}}})
	at := admitEpoch
	started := 0
	for range 10 {
		if a.ask(at, asking(a, "x", 5, "t", "", "", true)) {
			started++
		}
	}
	if started != 3 {
		t.Errorf("%d start at once, want 3", started)
	}
	for n := 4; n <= 10; n++ {
		next := a.next()
		if want := at.Add(500 * time.Millisecond); !next.Equal(want) {
			t.Fatalf("number %d may start at %s, want %s", n, next, want)
		}
		at = next
		a.granted = nil
		if a.tick(at.Add(-time.Millisecond)); len(a.granted) != 0 {
			t.Errorf("number %d starts early", n)
		}
		if a.tick(at); len(a.granted) != 1 {
			t.Fatalf("%d start at %s", len(a.granted), at)
		}
	}
	if next := a.next(); !next.IsZero() {
		t.Errorf("nobody waits, and there is a next time: %s", next)
	}
	a.ask(at, asking(a, "x", 5, "t", "", "", true))
	if back := at.Add(-time.Hour); a.next().Sub(back) > 3*time.Hour {
		t.Error(a.next())
	}
}

// Whatever is asked, given back and withdrawn: no gauge is exceeded, counts are right, nobody waits while there is room, and once everybody gives
// back, everybody has been served.
func TestAdmissionProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := newAdmission(rapid.IntRange(1, 4).Draw(t, "process"), Limits{
			PerDevice: rapid.IntRange(0, 2).Draw(t, "device"), PerModule: rapid.IntRange(0, 2).Draw(t, "module"),
			Tools: map[string]ToolLimit{"t": {Concurrency: rapid.IntRange(0, 3).Draw(t, "tool")}},
		})
		var running, waiting []*ticket
		collect := func() {
			for _, one := range a.granted {
				at := slices.Index(waiting, one)
				if at < 0 {
					t.Fatal("granted, and did not wait")
				}
				waiting = slices.Delete(waiting, at, at+1)
				running = append(running, one)
			}
			a.granted = nil
		}
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				one := asking(a, rapid.StringMatching("[a-c]").Draw(t, "lane"), int8(rapid.IntRange(0, urgent).Draw(t, "priority")),
					rapid.SampledFrom([]string{"t", "u"}).Draw(t, "tool"), rapid.SampledFrom([]string{"", "d1", "d2"}).Draw(t, "on"),
					rapid.SampledFrom([]string{"", "m"}).Draw(t, "of"), rapid.Bool().Draw(t, "local"))
				if a.ask(admitEpoch, one) {
					running = append(running, one)
				} else {
					waiting = append(waiting, one)
					if one.why(admitEpoch) == "" {
						t.Fatal("it waits, and does not say what for")
					}
				}
			case 2:
				if len(running) > 0 {
					at := rapid.IntRange(0, len(running)-1).Draw(t, "release")
					one := running[at]
					running = slices.Delete(running, at, at+1)
					a.release(admitEpoch, one)
				}
			case 3:
				if len(waiting) > 0 {
					at := rapid.IntRange(0, len(waiting)-1).Draw(t, "withdraw")
					one := waiting[at]
					waiting = slices.Delete(waiting, at, at+1)
					a.release(admitEpoch, one)
				}
			}
			collect()
			count := map[*gauge]int{}
			for _, one := range slices.Concat(running, waiting) {
				for _, g := range one.gauges[:one.held] {
					count[g]++
				}
			}
			for g, n := range count {
				if g.running != n || g.limit > 0 && n > g.limit {
					t.Fatalf("%s %s: %d run by its count, %d in truth, %d may", g.what, g.name, g.running, n, g.limit)
				}
			}
			for _, one := range waiting {
				if g := one.gauges[one.at]; g.free(admitEpoch) || !one.waits {
					t.Fatalf("it waits for %s %s, which has room", g.what, g.name)
				}
			}
		}
		for range steps {
			for _, one := range running {
				a.release(admitEpoch, one)
			}
			running = nil
			collect()
		}
		if len(waiting) > 0 || len(a.devices)+len(a.modules) > 0 || a.process.running != 0 || a.process.queue.live != 0 {
			t.Fatalf("%d still wait; %d devices and %d modules are remembered", len(waiting), len(a.devices), len(a.modules))
		}
	})
}

// What admission costs each attempt: without limits, with limits that are not reached, and with ten thousand that wait.
func BenchmarkAdmission(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		e := &Engine{}
		g := newGate(&Config{Concurrency: 64}, &e.attempts)
		r := &run{id: "x", engine: e}
		b.ReportAllocs()
		for b.Loop() {
			t, _ := g.ask(r, request{step: "s", tool: "t", local: true})
			g.release(t)
		}
	})
	b.Run("limits", func(b *testing.B) {
		e := &Engine{}
		g := newGate(&Config{Concurrency: 64, Limits: Limits{PerDevice: 2, PerModule: 2, Tools: map[string]ToolLimit{"t": {Concurrency: 2}}}}, &e.attempts)
		r := &run{id: "x", engine: e, module: "m"}
		b.ReportAllocs()
		for b.Loop() {
			t, _ := g.ask(r, request{step: "s", tool: "t", device: "d", local: true})
			g.release(t)
		}
	})
	b.Run("waiting", func(b *testing.B) {
		a := newAdmission(1, Limits{})
		running := asking(a, "x", 5, "t", "", "", true)
		a.ask(admitEpoch, running)
		for i := range 10_000 {
			a.ask(admitEpoch, asking(a, fmt.Sprint(i%100), 5, "t", "", "", true))
		}
		b.ReportAllocs()
		for b.Loop() {
			a.ask(admitEpoch, asking(a, "again", 5, "t", "", "", true))
			a.release(admitEpoch, running)
			running = a.granted[0]
			a.granted = a.granted[:0]
		}
	})
}
