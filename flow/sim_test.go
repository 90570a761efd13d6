package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
        - {name: z1, tool: keyed, each: "[1, 2, 3]", on_failure: pause}
      w:
        - {name: w1, sleep: 3s}
        - {name: w2, tool: probed, each: "[1, 2, 3]", on_failure: pause}
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

func (s *simWorld) resume() {
	if s.Up(simEngine) {
		s.post(input{kind: inResume, actor: "person"})
	}
	if !s.Up(simEngine) || s.disk.Paused {
		s.After("", time.Second, s.resume)
	}
}

// signal sends a signal until it is acknowledged, and now and then once more.
func (s *simWorld) signal(id string, more int) {
	if s.signals[id] > 0 {
		more++
	}
	if s.Up(simEngine) {
		s.post(input{kind: inSignal, name: "go", id: id, result: Result{Output: json.RawMessage(`{"n":1}`)}})
	}
	if more < 2 {
		s.After("", time.Duration(500+s.Rand().IntN(5000))*time.Millisecond, func() { s.signal(id, more) })
	}
}

// answer has somebody answer what people are asked.
func (s *simWorld) answer() {
	if !s.Up(simEngine) || s.x.State.Ended() {
		return
	}
	asked := ""
	for i := range s.x.Steps {
		if s.program().steps[i].Approve != nil && s.x.here(i) {
			asked = s.x.Steps[i].Name
		}
	}
	in := input{kind: inApprove, step: asked, actor: []string{"ann", "bob", "eve"}[s.Rand().IntN(3)]}
	if s.Rand().IntN(8) == 0 {
		in.kind = inRefuse
	}
	s.post(in)
}

// intervene has a person do something to the execution.
func (s *simWorld) intervene() {
	if !s.Up(simEngine) || s.x.State.Ended() {
		return
	}
	var spots, reached []int
	for i := range s.x.Steps {
		if s.x.here(i) {
			spots = append(spots, i)
		}
		if s.x.reached(i) {
			reached = append(reached, i)
		}
	}
	if len(spots) == 0 {
		return
	}
	if s.Rand().IntN(8) == 0 {
		s.post(input{kind: inMigrate, program: s.versions[s.Rand().IntN(2)], actor: "person"})
		return
	}
	if s.Rand().IntN(8) == 0 {
		s.post(input{kind: inPause, actor: "person"})
		s.After("", time.Duration(s.Rand().IntN(20_000))*time.Millisecond, s.resume)
		return
	}
	at := spots[s.Rand().IntN(len(spots))]
	in := input{step: s.x.Steps[at].Name, item: s.Rand().IntN(max(1, len(s.x.Steps[at].Tasks))), actor: "person"}
	switch s.Rand().IntN(5) {
	case 4:
		for i, plan := range s.program().steps { // the first that has not ended
			if s.x.Steps[i].Ended.IsZero() && plan.holds() && len(plan.Branches) == 0 {
				in.kind, in.step, in.name = inChoose, plan.Name, plan.ways()[s.Rand().IntN(len(plan.ways()))]
				break
			}
		}
		if in.kind == 0 {
			return
		}
	case 0:
		in.kind = inSkip
		if s.Rand().IntN(2) == 0 && !s.x.Steps[at].Fanned {
			in.result.Output = json.RawMessage(`{"ok":true}`)
		}
	case 1:
		in.kind = inFail
	case 2:
		if s.program().steps[at].effect == Manual {
			return // a person looks first: askPerson
		}
		in.kind = inRetryStep
	default:
		in.kind, in.step = inBack, s.x.Steps[reached[s.Rand().IntN(len(reached))]].Name
	}
	s.Trace("person: %d %s %d", in.kind, in.step, in.item)
	s.post(in)
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

// heard: no signal is taken twice, none that has not come.
func (s *simWorld) heard(e *Event) {
	switch {
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

func lostResult(why string) Result {
	return Result{Error: &Error{Code: CodeLost, Message: why, Unknown: true}}
}

func ended(c Call, r Result) input {
	return input{kind: inEnded, step: c.Step, item: c.Item, attempt: c.Attempt, undo: c.Undo, probe: c.Probe, result: r}
}

// invoke runs a tool on a node: its effect comes some time before its end.
func (s *simWorld) invoke(c Call, node string, end func(Result)) {
	s.invariants(c)
	took := time.Duration(10+s.Rand().IntN(2000)) * time.Millisecond
	dice := s.Rand().IntN(100)
	if s.Healing() {
		dice = 99
	}
	still := func() bool {
		_, on := s.running[c.ID]
		return node == simEngine || on
	}
	s.After(node, took/2, func() {
		if still() && dice >= 10 {
			s.effect(c)
		}
	})
	s.After(node, took, func() {
		switch {
		case !still():
		case dice < 10:
			end(Result{Error: &Error{Code: "failed", Message: "no luck"}})
		case dice < 14 && !c.Undo && !c.Probe:
			end(Result{Error: &Error{Code: CodeTimeout, Message: "too slow", Unknown: true}})
		case c.Probe:
			end(Result{Output: mustJSON(map[string]any{"done": s.applied[c.Key]})})
		default:
			end(Result{Output: json.RawMessage(`{"ok":true}`)})
		}
	})
}

// invariants looks at each time a tool is started.
func (s *simWorld) invariants(c Call) {
	if c.Probe || c.Undo {
		return
	}
	at := s.versions[1].index[c.Step]
	if before, again := s.unsettled[spot(c)]; again {
		// I3: a tool whose effect is unacknowledged is run again only with its idempotency key.
		if before.Key != c.Key {
			s.Fail(fmt.Errorf("I3: step %s item %d runs again with key %s, before with %s", c.Step, c.Item, c.Key, before.Key))
		}
		if s.versions[1].steps[at].effect == Manual && !s.person {
			s.Fail(fmt.Errorf("I3: step %s item %d is manual, and runs again though nobody knows what became of it", c.Step, c.Item))
		}
	}
	s.unsettled[spot(c)] = c
	if s.done[spot(c)] {
		s.Fail(fmt.Errorf("step %s item %d runs again, and it is done", c.Step, c.Item))
	}
}

// effect is what a tool does to the world. Keyed tools do it once per key, others each time.
func (s *simWorld) effect(c Call) {
	switch {
	case c.Undo:
		if s.applied[c.Key] {
			delete(s.applied, c.Key)
			s.doubled[spot(c)]--
		}
	case c.Probe || c.Tool == "pure":
	case c.Tool == "keyed" || c.Tool == "remote":
		if s.applied[c.Key] {
			return
		}
		fallthrough
	default:
		s.applied[c.Key] = true
		s.doubled[spot(c)]++
		if s.doubled[spot(c)] > 1 {
			s.Fail(fmt.Errorf("step %s item %d has its effect twice", c.Step, c.Item))
		}
	}
}

// ask hands an attempt to the device; reask does so again for all that are not answered.
func (s *simWorld) ask(c Call) {
	s.Send(simEngine, simDevice, func() { s.take(c) })
}

func (s *simWorld) reask() {
	s.Every(simEngine, time.Second, func() {
		for _, id := range slices.Sorted(maps.Keys(s.asked)) {
			s.ask(s.asked[id])
		}
	})
}

// take is the worker: it runs an attempt once, and ends others with the same key first.
func (s *simWorld) take(c Call) {
	if result, known := s.journal[c.ID]; known {
		if result != nil {
			s.tell(c, *result)
		}
		return
	}
	for id, other := range s.running {
		if other.Key == c.Key {
			delete(s.running, id)
			s.finish(id, lostResult("superseded"))
		}
	}
	s.journal[c.ID], s.running[c.ID] = nil, c
	s.invoke(c, simDevice, func(r Result) {
		delete(s.running, c.ID)
		s.journal[c.ID] = &r
		s.tell(c, r)
	})
}

func (s *simWorld) finish(id string, r Result) {
	if s.journal[id] == nil {
		s.journal[id] = &r
	}
}

func (s *simWorld) tell(c Call, r Result) {
	s.Send(simDevice, simEngine, func() {
		delete(s.asked, c.ID)
		s.post(ended(c, r))
	})
}

func (s *simWorld) deviceRestart() {
	for id, result := range s.journal {
		if result == nil {
			s.finish(id, lostResult("the worker stopped"))
		}
	}
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

// askPerson has somebody look at an execution that is stuck.
func (s *simWorld) askPerson() {
	if s.x.State != Stuck || s.asking {
		return
	}
	s.asking = true
	s.After(simEngine, time.Duration(2+s.Rand().IntN(8))*time.Second, func() {
		s.asking = false
		if s.x.State != Stuck {
			return
		}
		for i := range s.x.Steps {
			for j := range s.x.Steps[i].Tasks {
				t := &s.x.Steps[i].Tasks[j]
				if t.State == TaskHeld && s.program().steps[i].effect == Manual {
					// The person goes and looks.
					step := s.x.Steps[i].Name
					s.post(input{kind: inSettle, step: step, item: j, done: s.applied[s.key(i, j)], actor: "person"})
					return
				}
				if t.State == TaskHeld && s.program().steps[i].kind().waits() != waitNothing && s.Rand().IntN(2) == 0 {
					s.post(input{kind: inSettle, step: s.x.Steps[i].Name, done: true, actor: "person"})
					return
				}
			}
		}
		s.person = true
		s.post(input{kind: inRetry, actor: "person"})
		s.person = false
	})
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
	return sim.Config{Nodes: []string{simEngine, simDevice}, Seeds: seeds, Duration: 8 * time.Minute}
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
