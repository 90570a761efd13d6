package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// simFlow has a step of each effect class, local and on a device, with and without undo, and blocks of all kinds.
const simFlow = `
flow: sim
steps:
  - {name: a, tool: keyed, retry: {attempts: 3, backoff: 100ms}}
  - {name: b, tool: probed, retry: {attempts: 3, backoff: 100ms}}
  - name: c
    tool: remote
    each: "[1, 2, 3, 4]"
    parallel: 2
    on: device
    with: {n: "${item}"}
    retry: {attempts: 3, backoff: 100ms}
  - name: par
    branches:
      x:
        - {name: x1, tool: keyed, retry: {attempts: 3, backoff: 100ms}}
        - {name: x2, tool: remote, on: device, on_failure: {steps: [{name: x3, tool: keyed, with: {code: "${failure.code}"}, on_failure: skip}]}}
      y:
        - {name: y1, tool: probed, retry: {attempts: 3, backoff: 100ms}}
        - name: way
          if: "has(steps.a) && steps.a.ok"
          then: [{name: y2, tool: keyed, each: "[1, 2]", parallel: 2, retry: {attempts: 3, backoff: 100ms}}]
          else: [{name: y3, tool: manual, on_failure: skip}]
        - {name: y4, sleep: 6s}
      z:
        - {name: z1, tool: keyed, each: "[1, 2, 3, 4]", parallel: 4, on_failure: pause}
      w:
        - {name: w1, sleep: 12s}
        - {name: w2, tool: keyed, each: "[1, 2, 3, 4]", parallel: 2, on_failure: pause}
  - {name: rounds, tool: keyed, repeat: {until: "index > 1", every: 500ms, max: 4}, retry: {attempts: 3, backoff: 100ms}}
  - {name: roll, tool: keyed, each: "[1, 2, 3, 4, 5]", parallel: 2, batch: 2, quota: "2", retry: {attempts: 2, backoff: 100ms}, output: {n: "${item}"}}
  - {name: d, tool: manual}
  - {name: nap, sleep: 3s}
  - {name: hear, signal: go, timeout: 20s, on_failure: skip}
  - {name: ask, approve: {text: "go on?", count: 2}, timeout: 40s, on_failure: {steps: [{name: ask2, tool: keyed, on_failure: skip}]}}
  - {name: hear2, signal: go, timeout: 20s, on_failure: pause}
  - {name: e, tool: pure, retry: {attempts: 5, backoff: 100ms}}
  - {name: f, tool: remote, on: device, on_failure: skip}
  - {name: g, tool: keyed, retry: {attempts: 2, backoff: 100ms}}
`

func simProgram(t *testing.T) []*program {
	t.Helper()
	// What a person may move an execution to while it is under way, wherever it is: there is more behind, and less patience.
	more := strings.Replace(simFlow, "timeout: 40s", "timeout: 30s", 1) + "  - {name: tail, tool: keyed, retry: {attempts: 3, backoff: 100ms}}\n"
	return simVersions(t, simFlow, more)
}

// simVersions compiles the versions of a flow over the tools of the simulation.
func simVersions(t *testing.T, sources ...string) []*program {
	t.Helper()
	tools := NewTools()
	for _, m := range []Manifest{
		{Name: "keyed", Effect: Keyed, Undo: "undo"},
		{Name: "probed", Effect: Probe, Probe: "probe", Undo: "undo"},
		{Name: "remote", Effect: Keyed, Undo: "undo.remote", OnDevice: true},
		{Name: "manual", Effect: Manual, Undo: "undo"},
		{Name: "pure", Effect: Pure},
		{Name: "probe", Effect: Pure},
		{Name: "undo", Effect: Keyed},
		{Name: "undo.remote", Effect: Keyed, OnDevice: true},
	} {
		tools.add(m, nil)
	}
	var out []*program
	for i, source := range sources {
		p, faults := compile([]byte(source), tools)
		if len(faults) > 0 {
			t.Fatalf("%v\n%s", faults, source)
		}
		p.Version = i + 1
		out = append(out, p)
	}
	return out
}

const (
	simEngine = "engine"
	simDevice = "device"
)

// simWorld is an engine with its disk, a device with its disk, and the effects of tools on the world.
type simWorld struct {
	*sim.World
	p        *program // the first version
	versions []*program
	planted  string

	// On the engine's disk.
	records []Record
	row     Row
	disk    *Execution // the fold of the records, kept up to date

	// In the engine's memory.
	x       *Execution
	inbox   []input
	writing *Transition
	asked   map[string]Call

	// On the device's disk, and in its memory.
	journal map[string]*Result // nil: begun
	running map[string]Call

	// The world outside.
	applied   map[string]bool // by key
	doubled   map[string]int  // by step and item: effects minus undos
	unsettled map[string]Call // by step and item: invoked, end not durable
	done      map[string]bool // by step and item: the end is durable
	person    bool            // has been asked
	asking    bool            // somebody is on the way to look
	signals   map[string]int  // by ID: 1 acknowledged, 2 taken by a step
}

func spot(c Call) string { return fmt.Sprintf("%s/%d", c.Step, c.Item) }

func simScenario(versions []*program, planted string) sim.Scenario {
	p := versions[0]
	return func(w *sim.World) func() error {
		s := &simWorld{
			World: w, p: p, versions: versions, planted: planted, asked: map[string]Call{}, journal: map[string]*Result{}, running: map[string]Call{},
			applied: map[string]bool{}, doubled: map[string]int{}, unsettled: map[string]Call{}, done: map[string]bool{}, signals: map[string]int{},
		}
		w.OnCrash(simEngine, s.engineCrash, s.engineRestart)
		w.OnCrash(simDevice, func() { clear(s.running) }, s.deviceRestart)
		s.x, s.disk = newExecution(&p.Definition, "x"), newExecution(&p.Definition, "x")
		m := &machine{p: p, x: s.x, now: s.clock(), planted: planted}
		params, err := p.bind(nil)
		if err != nil {
			w.Fail(err)
		}
		m.emit(Event{Kind: EventStarted, Flow: "sim", Version: 1, Params: params})
		m.step(input{kind: inGo})
		t := m.transition(0)
		s.store(&t)
		s.perform(m.actions)
		s.reask()
		if w.Rand().IntN(5) == 0 {
			w.After("", time.Duration(w.Rand().IntN(20_000))*time.Millisecond, func() {
				if w.Up(simEngine) {
					s.post(input{kind: inCancel, actor: "someone"})
				}
			})
		}
		if w.Rand().IntN(2) == 0 {
			w.After("", time.Duration(w.Rand().IntN(10_000))*time.Millisecond, s.pause)
		}
		for range w.Rand().IntN(4) {
			w.After("", time.Duration(w.Rand().IntN(15_000))*time.Millisecond, s.intervene)
		}
		for i := range 1 + w.Rand().IntN(6) {
			w.After("", time.Duration(w.Rand().IntN(60_000))*time.Millisecond, func() { s.signal(fmt.Sprint(i), 0) })
		}
		w.Every("", 4*time.Second, s.answer)
		return s.check
	}
}

// key is the idempotency key of a task.
func (s *simWorld) key(step, item int) string {
	return (&machine{x: s.x}).key(&s.x.Steps[step], item)
}

func (s *simWorld) clock() time.Time { return s.Clock(simEngine).UTC().Truncate(time.Microsecond) }

// store makes a transition durable and holds it to what must be true of every one.
func (s *simWorld) store(t *Transition) {
	if t.Prev != s.row.Seq {
		s.Fail(fmt.Errorf("a stale transition: from %d, stored is %d", t.Prev, s.row.Seq))
		return
	}
	s.records, s.row = append(s.records, t.Record), t.Row
	s.disk.Seq = t.Prev // set by the fold below
	events, err := DecodeEvents("x", t.Record)
	if err != nil {
		s.Fail(err)
	}
	for _, e := range events {
		if t := s.disk.task(s.disk.stepIndex(e.Step), e.Item); t != nil && e.Kind == EventAttemptDone && (t.State == TaskDone || t.Attempt != e.Attempt) {
			s.Fail(fmt.Errorf("the end of attempt %d of step %s item %d was taken when it is %s at attempt %d", e.Attempt, e.Step, e.Item, t.State, t.Attempt))
		}
		s.heard(&e)
		s.disk.lookup = s.lookup
		s.disk.apply(&e)
		s.Trace("%s", e)
		switch e.Kind {
		case EventAttemptDone, EventAttemptFailed:
			delete(s.unsettled, fmt.Sprintf("%s/%d", e.Step, e.Item))
			s.done[fmt.Sprintf("%s/%d", e.Step, e.Item)] = e.Kind == EventAttemptDone
		case EventReturned: // what comes is another effect
			for i := s.disk.stepIndex(e.Step); i < len(s.disk.Steps); i++ {
				again := func(spot string, _ bool) bool { return strings.HasPrefix(spot, s.disk.Steps[i].Name+"/") }
				maps.DeleteFunc(s.done, again)
				maps.DeleteFunc(s.unsettled, func(spot string, _ Call) bool { return again(spot, false) })
			}
		}
	}
	if found := s.disk.violations(s.row); len(found) > 0 {
		s.Fail(fmt.Errorf("the store: %s", strings.Join(found, "; ")))
	}
	s.told()
}

// told: whatever waits for a person, somebody knows of it as soon as nothing else runs, and only then.
func (s *simWorld) told() {
	switch x := s.disk; {
	case x.State == Stuck && x.held == 0:
		s.Fail(fmt.Errorf("it is stuck at %s, and nothing waits for a person", x.Waiting))
	case x.State == Stuck && x.untold:
		s.Fail(fmt.Errorf("it is stuck at %s, and nobody was told of a step that is held since", x.Waiting))
	case x.State != Stuck && !x.State.Ended() && x.held > 0 && x.active+x.undos+x.queued == 0 && (x.Target != "" || !x.runnable()):
		s.Fail(fmt.Errorf("%s waits for a person, nothing else runs, and it is %s", x.heldReason(), x.State))
	}
}

// post hands an input to the engine; it is worked on when no write is under way.
func (s *simWorld) post(in input) {
	s.inbox = append(s.inbox, in)
	if s.writing != nil {
		return
	}
	m := &machine{p: s.program(), x: s.x, now: s.clock(), planted: s.planted}
	prev := s.x.Seq
	for _, one := range s.inbox {
		m.step(one)
		if err := agreesWithWalk(s.x); err != nil {
			s.Fail(err)
		}
	}
	s.inbox = nil
	done := func() { s.perform(m.actions) }
	if len(m.events) == 0 {
		done()
		return
	}
	t := m.transition(prev)
	s.writing = &t
	s.After(simEngine, time.Duration(1+s.Rand().IntN(5))*time.Millisecond, func() {
		s.store(s.writing)
		s.writing = nil
		// I9: what is in memory is what a restart would make of the disk.
		if x, found := refold(s.lookup, "x", s.records); len(found) == 0 && s.Rand().IntN(4) == 0 {
			if diff := stateDiff(x, s.x); diff != "" {
				s.Fail(fmt.Errorf("I9: memory differs from the replay of what was stored: %s", diff))
			}
		}
		done()
		s.askPerson()
		if len(s.inbox) > 0 {
			in := s.inbox[len(s.inbox)-1]
			s.inbox = s.inbox[:len(s.inbox)-1]
			s.post(in)
		}
	})
}

// heard: nothing begins while it is paused, no batch before the end of the last; no signal is taken twice, none that has not come.
func (s *simWorld) heard(e *Event) {
	switch {
	case e.Kind == EventAttemptStarted && s.disk.Paused:
		s.Fail(fmt.Errorf("step %s item %d begins attempt %d, and the execution is paused", e.Step, e.Item, e.Attempt))
	case e.Kind == EventAttemptStarted && e.Step == "roll" && e.Attempt == 1:
		for i := range e.Item / 2 * 2 {
			if t := s.disk.task(s.disk.stepIndex("roll"), i); open(t.State) || t.State == TaskWaiting {
				s.Fail(fmt.Errorf("step roll item %d begins, and item %d of an earlier batch is %s", e.Item, i, t.State))
			}
		}
	case e.Kind == EventSignalled && s.signals[e.ID] > 0:
		s.Fail(fmt.Errorf("signal %s is taken in twice", e.ID))
	case e.Kind == EventSignalled:
		s.signals[e.ID] = 1
	case e.Kind == EventAttemptDone && e.Signal != "":
		var got struct{ ID string }
		if err := json.Unmarshal(e.Output, &got); err != nil || s.signals[got.ID] != 1 {
			s.Fail(fmt.Errorf("step %s takes signal %q, which %d steps have taken: %v", e.Step, got.ID, s.signals[got.ID]-1, err))
		}
		s.signals[got.ID] = 2
	}
}

func (s *simWorld) lookup(version int) (*Definition, error) {
	return &s.versions[version-1].Definition, nil
}

// program is that of the version that the execution is of.
func (s *simWorld) program() *program { return s.versions[s.x.Version-1] }

func stateDiff(a, b *Execution) string {
	if bytes.Equal(mustJSON(a), mustJSON(b)) {
		return "" // what cmp says takes long to say
	}
	return cmp.Diff(*a, *b, cmpopts.IgnoreUnexported(Execution{}, StepStatus{}, Task{}), cmpopts.EquateEmpty())
}

// perform does what the machine asks for.
func (s *simWorld) perform(actions []action) {
	for _, a := range actions {
		switch {
		case a.kind == actTimer:
			s.After(simEngine, a.at.Sub(s.clock()), func() {
				s.post(input{kind: inDue, step: a.call.Step, item: a.call.Item, undo: a.call.Undo, at: a.at})
			})
		case a.kind == actStop && s.asked[a.call.ID].ID != "":
			s.Send(simEngine, simDevice, func() { delete(s.running, a.call.ID); s.finish(a.call.ID, lostResult("stopped")) })
		case a.kind == actStop: // local tools of this world do not listen
		case a.remote:
			s.asked[a.call.ID] = a.call
			s.ask(a.call)
			s.After(simEngine, time.Duration(1+s.Rand().IntN(15))*time.Second, func() { // the device is given up after a while
				if _, waiting := s.asked[a.call.ID]; waiting && s.Rand().IntN(2) == 0 {
					delete(s.asked, a.call.ID)
					s.post(ended(a.call, Result{Error: &Error{Code: CodeDeviceLost, Message: "away", Unknown: true}}))
				}
			})
		default:
			s.invoke(a.call, simEngine, func(r Result) { s.post(ended(a.call, r)) })
		}
	}
}

func ended(c Call, r Result) input {
	return input{kind: inEnded, step: c.Step, item: c.Item, attempt: c.Attempt, undo: c.Undo, probe: c.Probe, result: r}
}

// engineCrash loses the memory. A write under way may or may not have reached the disk.
func (s *simWorld) engineCrash() {
	if s.writing != nil && s.Rand().IntN(2) == 0 {
		s.store(s.writing)
	}
	s.x, s.inbox, s.writing, s.asking = nil, nil, nil, false
	clear(s.asked)
}

func (s *simWorld) engineRestart() {
	x, found := refold(s.lookup, "x", s.records)
	if len(found) > 0 {
		s.Fail(fmt.Errorf("restart: %v", found))
		return
	}
	s.x = x
	s.reask()
	s.post(input{kind: inRecover})
	s.askPerson()
}

// check looks at the world once the run is over.
func (s *simWorld) check() error {
	x, found := refold(s.lookup, "x", s.records)
	if len(found) > 0 {
		return fmt.Errorf("the store: %v", found)
	}
	if !x.State.Ended() {
		return fmt.Errorf("the execution has not ended: it is %s at step %s, woken by %+v", x.State, x.Step, x.wake())
	}
	kept := len(x.kept["go"])
	for _, state := range s.signals {
		if state == 1 {
			kept--
		}
	}
	if kept != 0 {
		return fmt.Errorf("%d signals more are kept than came and were not taken", kept)
	}
	for i, plan := range s.versions[x.Version-1].steps {
		if plan.effect == Pure || plan.Tool == "" {
			continue
		}
		for j := range x.Steps[i].Tasks {
			t := &x.Steps[i].Tasks[j]
			n := s.doubled[fmt.Sprintf("%s/%d", plan.Name, j)]
			switch {
			case x.State == Done && t.State == TaskDone && n != 1:
				return fmt.Errorf("done, and step %s item %d had its effect %d times", plan.Name, j, n)
			case x.State != Done && n != 0:
				return fmt.Errorf("%s, and the effect of step %s item %d is still there", x.State, plan.Name, j)
			}
		}
	}
	return nil
}

func simConfig(seeds int) sim.Config {
	return sim.Config{
		Nodes: []string{simEngine, simDevice}, Seeds: seeds, Duration: 8 * time.Minute, Within: time.Minute, Faults: 12,
		Kinds: []sim.Kind{sim.Crash, sim.Crash, sim.Crash, sim.Cut, sim.Delay, sim.Duplicate, sim.Reorder, sim.ClockJump},
	}
}

// I3, I9, and that every execution ends, each effect there exactly once or undone.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if failure := sim.Explore(simConfig(sim.Seeds(200)), simScenario(simProgram(t), "")); failure != nil {
		t.Fatal(failure)
	}
}

// A simulation that cannot fail proves nothing: each planted bug is found within 100 seeds.
func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, planted := range []string{
		"another key",    // I3
		"rerun manual",   // I3
		"forget tries",   // I9
		"take late ends", // an end that is not the current attempt's
		"skip an undo",
		"undo the last iteration",
		"stuck alone", // only what waits for nothing else is stuck
		"tell once",   // of the first step that is held
		"no batches",
		"take signals twice",
		"join early", // a step with branches ends with the first of them
		"undo what runs",
		"start while paused",
	} {
		t.Run(planted, func(t *testing.T) {
			t.Parallel()
			failure := sim.Explore(simConfig(100), simScenario(simProgram(t), planted))
			if failure == nil {
				t.Fatal("not found within 100 seeds")
			}
			t.Logf("found after %d seeds: %v", failure.Runs, failure.Err)
		})
	}
}
