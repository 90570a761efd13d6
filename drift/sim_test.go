package drift_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// world is a simulated device around the pure core: files that somebody tampers with, observations that are late, partial
// or lost, repairs that fail, lie or are slow, declarations and holds that change. Everything follows from one seed.
type world struct {
	rng     *rand.Rand
	now     time.Time
	core    *drift.CoreTest
	config  drift.Config
	desired drift.State
	live    map[string]string // content by path; "" is missing
	holds   map[int]drift.Hold
	working []drift.Finding // repairs at work
	intents map[drift.Key]drift.Finding
	repairs map[drift.Key][]time.Time // since the declaration of the key changed
	total   []time.Time
	fault   error // the first broken invariant
	honest  bool  // from here on repairs work
}

const simFiles = 6

func simName(i int) string { return fmt.Sprintf("etc/%d", i) }

func newWorld(seed uint64, mode drift.Mode, planted string) *world {
	config := drift.Config{Mode: mode, Confirm: 2 * time.Second, Settle: 10 * time.Second, RepairsPerHour: 12, FlapLimit: 3, FlapWindow: 10 * time.Minute}
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), now: noon, core: drift.NewCoreTest(config, planted), config: config,
		live: make(map[string]string), holds: make(map[int]drift.Hold),
		intents: make(map[drift.Key]drift.Finding), repairs: make(map[drift.Key][]time.Time),
	}
	files := make(map[string]drift.File)
	for i := range simFiles {
		files[simName(i)] = drift.File{Kind: drift.KindConfig, Digest: "v0"}
		w.live[simName(i)] = "v0"
	}
	w.declare(drift.State{Files: files})
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf(format, args...)
	}
}

func (w *world) declare(s drift.State) {
	for name, f := range s.Files {
		if w.desired.Files[name] != f {
			delete(w.repairs, drift.Key{Kind: f.Kind, Subject: name})
		}
	}
	w.desired = s
	w.do(w.core.Declare(w.now, s))
}

func (w *world) state() drift.State {
	files := make(map[string]drift.File)
	for name, content := range w.live {
		if content != "" {
			files[name] = drift.File{Kind: drift.KindConfig, Digest: content}
		}
	}
	return drift.State{Files: files}
}

// observe compares, and checks that comparing has changed nothing.
func (w *world) observe(only []string) {
	live := w.state()
	before := w.state()
	desired := drift.State{Files: make(map[string]drift.File)}
	for name, f := range w.desired.Files {
		desired.Files[name] = f
	}
	actions := w.core.Observe(w.now, live, only)
	// I6: comparing never writes.
	if !maps.Equal(before.Files, live.Files) || !maps.Equal(desired.Files, w.desired.Files) {
		w.fail("comparing has changed what it compared")
	}
	w.do(actions)
}

func (w *world) do(actions []drift.CoreAction) {
	for _, a := range actions {
		switch {
		case a.Tell != nil && a.Tell.Kind == drift.EventIntent:
			w.intents[a.Tell.Finding.Key()] = a.Tell.Finding
		case a.Repair != nil:
			w.repair(*a.Repair)
		case a.Look != nil:
			w.observe([]string{a.Look.Subject})
		}
	}
}

// repair begins one, and checks that it may.
func (w *world) repair(f drift.Finding) {
	key := f.Key()
	// I6: repair says what it will do before it does it.
	intent, told := w.intents[key]
	if !told || intent.Expected != f.Expected || intent.Actual != f.Actual {
		w.fail("%v: repaired without saying so before", key)
	}
	delete(w.intents, key)
	if w.config.Mode == drift.Observe {
		w.fail("%v: repaired in mode observe", key)
	}
	if slices.ContainsFunc(w.working, func(other drift.Finding) bool { return other.Key() == key }) {
		w.fail("%v: two repairs at once", key)
	}
	for _, h := range w.holds {
		if h.Subject == key.Subject {
			w.fail("%v: repaired although it is held", key)
		}
	}
	w.repairs[key] = append(w.repairs[key], w.now)
	if n := within(w.repairs[key], w.now.Add(-w.config.FlapWindow)); n > w.config.FlapLimit {
		w.fail("%v: %d repairs within %v", key, n, w.config.FlapWindow)
	}
	w.total = append(w.total, w.now)
	if n := within(w.total, w.now.Add(-time.Hour)); n > w.config.RepairsPerHour {
		w.fail("%v: repair number %d within an hour", key, n)
	}
	w.working = append(w.working, f)
}

func within(times []time.Time, start time.Time) (n int) {
	for _, t := range times {
		if t.After(start) {
			n++
		}
	}
	return n
}

// finish ends one repair, as it should or not.
func (w *world) finish() {
	if len(w.working) == 0 {
		return
	}
	i := w.rng.IntN(len(w.working))
	f := w.working[i]
	w.working = slices.Delete(w.working, i, i+1)
	var err error
	switch dice := w.rng.IntN(10); {
	case w.honest || dice < 5:
		w.live[f.Subject] = w.desired.Files[f.Subject].Digest
	case dice < 7:
		err = errors.New("no route to host")
	case dice < 8:
		w.live[f.Subject] = "wrong"
	case dice < 9: // it claims success and did nothing
	default:
		err = drift.ErrCannotRepair
	}
	w.do(w.core.Repaired(w.now, f.Key(), err))
}

// turn is one thing that happens.
func (w *world) turn() {
	name := simName(w.rng.IntN(simFiles))
	switch w.rng.IntN(12) {
	case 0, 1: // noticed by an event
		w.live[name] = fmt.Sprint("t", w.rng.IntN(3))
		w.observe([]string{name})
	case 2: // the event is lost
		w.live[name] = ""
	case 3:
		w.observe(nil)
	case 4: // noticed late, or for nothing
		w.observe([]string{name})
	case 5, 6:
		w.finish()
	case 7:
		if w.rng.IntN(5) > 0 {
			break
		}
		next := drift.State{Files: make(map[string]drift.File)}
		for n, f := range w.desired.Files {
			next.Files[n] = f
		}
		next.Files[name] = drift.File{Kind: drift.KindConfig, Digest: fmt.Sprint("v", w.rng.IntN(3))}
		w.declare(next)
	case 8:
		hold := drift.Hold{Subject: name, Reason: "deploy"}
		id := w.rng.IntN(2)
		w.holds[id] = hold
		w.do(w.core.Hold(w.now, id, &hold))
	case 9:
		id := w.rng.IntN(2)
		delete(w.holds, id)
		w.do(w.core.Hold(w.now, id, nil))
	default:
		w.now = w.now.Add(time.Duration(w.rng.IntN(20_000)) * time.Millisecond)
		w.do(w.core.Tick(w.now))
	}
}

// simulate runs one seed and returns the first broken invariant.
func simulate(seed uint64, mode drift.Mode, planted string) error {
	w := newWorld(seed, mode, planted)
	for range 300 {
		if w.turn(); w.fault != nil {
			return w.fault
		}
	}
	// From here on all is well: no more tampering, repairs work, observations come. What is not escalated ends repaired.
	w.honest = true
	for id := range 2 {
		delete(w.holds, id)
		w.do(w.core.Hold(w.now, id, nil))
	}
	for range 200 {
		w.now = w.now.Add(time.Minute)
		for len(w.working) > 0 {
			w.finish()
		}
		w.observe(nil)
		w.do(w.core.Tick(w.now))
	}
	differs := make(map[string]bool)
	for name, f := range w.desired.Files {
		differs[name] = w.live[name] != f.Digest
	}
	for _, f := range w.core.Open() {
		if !differs[f.Subject] {
			w.fail("%v: is as declared, but %s", f.Key(), f.Status)
		}
		delete(differs, f.Subject)
		if mode == drift.Repair && f.Status != drift.StatusEscalated {
			w.fail("%v: all is well, but it is %s (%v)", f.Key(), f.Status, f.Reason)
		}
	}
	for name, d := range differs {
		if d {
			w.fail("%s: differs, and nobody says so", name)
		}
	}
	if w.core.Inflight() != 0 {
		w.fail("%d repairs are counted as at work, but none is", w.core.Inflight())
	}
	if mode == drift.Repair && len(w.total) == 0 {
		w.fail("nothing was repaired: the simulation does not reach what it checks")
	}
	return w.fault
}

// I6: comparing never writes; repair says what it will do before it does it.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seeds := uint64(100)
	if testing.Short() {
		seeds = 50
	}
	for seed := range uint64(sim.Seeds(int(seeds))) {
		for _, mode := range []drift.Mode{drift.Repair, drift.Observe} {
			if err := simulate(seed, mode, ""); err != nil {
				t.Errorf("seed %d, mode %s: %v", seed, mode, err)
			}
		}
	}
}

// A simulation that cannot fail proves nothing: it must find each planted bug within 100 seeds.
func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for planted, mode := range map[string]drift.Mode{
		"repair before intent":   drift.Repair,
		"repair in observe mode": drift.Observe,
	} {
		t.Run(planted, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				if err := simulate(seed, mode, planted); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("not found within 100 seeds")
		})
	}
}
