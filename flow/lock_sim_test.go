package flow

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// lockSimFlow changes a module or two, and a database that others use as well.
const lockSimFlow = `
flow: change
params:
  keys: {type: list<string>, required: true}
locks: ["module/${params.keys[0]}", "module/${params.keys[1]}"]
steps:
  - {name: a, tool: keyed, retry: {attempts: 3, backoff: 100ms}}
  - {name: b, tool: keyed, each: "[1, 2, 3]", parallel: 3, exclusive: "db/${params.keys[0]}", retry: {attempts: 2, backoff: 100ms}}
  - {name: c, tool: pure}
`

// lockSim is an engine with its disk, on which several executions want the same locks and the same two places.
type lockSim struct {
	*sim.World
	p       *program
	planted string

	// On the disk.
	records map[string][]Record
	held    map[string]string // key to execution

	// In the engine's memory.
	x         map[string]*Execution
	admission *admission
	locks     *locks
	keepers   map[string]*lockSimKeeper

	// The world outside.
	inside map[string]string // exclusive key to the task that a tool runs for
	places int
}

// lockSimKeeper is the gate as one execution sees it.
type lockSimKeeper struct {
	s     *lockSim
	id    string
	asked *keyTicket
}

func (k *lockSimKeeper) admit(q request) (*ticket, string) {
	s := k.s
	t := &ticket{owner: &run{id: k.id}, request: q, lane: k.id, priority: 5}
	if q.exclusive != "" {
		t.key = &keyTicket{holder: taskName(k.id, q.step, q.item), keys: []string{exclusivePrefix + q.exclusive}, ticket: t}
		if blocked, _ := s.locks.ask(s.now(), t.key); blocked != nil {
			return t, blocked.said()
		}
	}
	return t, s.units(t)
}

func (s *lockSim) units(t *ticket) string {
	s.admission.bind(t, t.request.tool, "", "", true)
	if s.admission.ask(s.now(), t) || s.planted == "crowd" {
		return ""
	}
	return t.why(s.now())
}

func (k *lockSimKeeper) lock(keys []string) (string, bool) {
	if k.asked != nil {
		return "waits", false
	}
	t := &keyTicket{holder: k.id, keys: keys, owner: &run{id: k.id}}
	blocked, refused := k.s.locks.ask(k.s.now(), t)
	if blocked == nil {
		return "", false
	}
	k.asked = t
	return blocked.said(), refused
}

func (k *lockSimKeeper) held() []string {
	if h := k.s.locks.holders[k.id]; h != nil {
		return slices.Clone(h.keys)
	}
	return nil
}

func (s *lockSim) now() time.Time { return s.Clock(simEngine).UTC().Truncate(time.Microsecond) }

func lockScenario(p *program, planted string) sim.Scenario {
	return func(w *sim.World) func() error {
		s := &lockSim{World: w, p: p, planted: planted, records: map[string][]Record{}, held: map[string]string{}, inside: map[string]string{}}
		s.boot()
		w.OnCrash(simEngine, func() { clear(s.inside); s.places = 0 }, s.restart)
		names := []string{"m1", "m2", "m3"}
		for i := range 6 {
			w.After(simEngine, time.Duration(w.Rand().IntN(2000))*time.Millisecond, func() {
				keys := []any{names[w.Rand().IntN(3)], names[w.Rand().IntN(3)]}
				id := fmt.Sprint("x", i)
				s.x[id] = newExecution(&p.Definition, id)
				s.drive(id, input{kind: inGo}, &Event{Kind: EventStarted, Flow: p.Name, Version: 1, Params: map[string]any{"keys": keys}})
				if w.Rand().IntN(4) == 0 {
					w.After(simEngine, time.Duration(w.Rand().IntN(8000))*time.Millisecond, func() {
						if x := s.x[id]; x != nil && !x.State.Ended() {
							s.drive(id, input{kind: inCancel, actor: "someone"}, nil)
						}
					})
				}
			})
		}
		return s.check
	}
}

// boot makes an empty memory.
func (s *lockSim) boot() {
	s.x, s.keepers = map[string]*Execution{}, map[string]*lockSimKeeper{}
	s.admission, s.locks = newAdmission(2, Limits{}), newLocks()
	if s.planted == "ignore holders" {
		s.locks.planted = s.planted
	}
}

// restart takes everything up from the disk: locks first, as the engine does.
func (s *lockSim) restart() {
	s.boot()
	if s.planted != "forget locks" {
		for _, key := range slices.Sorted(maps.Keys(s.held)) {
			s.locks.seize(s.held[key], key, s.now())
		}
	}
	ids := slices.Sorted(maps.Keys(s.records))
	s.Rand().Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		x, found := refold(func(int) (*Definition, error) { return &s.p.Definition, nil }, id, s.records[id])
		if len(found) > 0 {
			s.Fail(fmt.Errorf("restart of %s: %v", id, found))
			return
		}
		x.taken, x.freed = nil, nil
		if x.State.Ended() {
			continue
		}
		for i := range x.Steps {
			for j := range x.Steps[i].Tasks {
				if t := &x.Steps[i].Tasks[j]; t.locked {
					s.locks.seize(taskName(id, x.Steps[i].Name, j), exclusivePrefix+t.Lock, s.now())
				}
			}
		}
		s.x[id] = x
	}
	for _, id := range ids {
		if s.x[id] != nil {
			s.drive(id, input{kind: inRecover}, nil)
		}
	}
}

// drive has an execution take one input, stores what comes of it and does what it asks for.
func (s *lockSim) drive(id string, in input, first *Event) {
	x := s.x[id]
	if x == nil {
		return
	}
	k := s.keepers[id]
	if k == nil {
		k = &lockSimKeeper{s: s, id: id}
		s.keepers[id] = k
	}
	m := &machine{p: s.p, x: x, now: s.now(), gate: k}
	prev := x.Seq
	if first != nil {
		m.emit(*first)
	}
	m.step(in)
	freed := x.freed
	if len(m.events) > 0 {
		s.store(m.transition(prev))
		s.free(freed)
	}
	for _, a := range m.actions {
		switch a.kind {
		case actTimer:
			s.After(simEngine, a.at.Sub(s.now()), func() {
				s.drive(id, input{kind: inDue, step: a.call.Step, item: a.call.Item, undo: a.call.Undo, at: a.at}, nil)
			})
		case actUnused:
			s.unused(a.grant)
		case actRun:
			s.runTool(id, a)
		}
	}
	if x.State.Ended() {
		s.locks.releaseAll(s.now(), id)
		delete(s.x, id)
		if k.asked != nil {
			s.locks.withdraw(s.now(), k.asked)
		}
	}
	s.hand()
}

func (s *lockSim) free(freed []keyChange) {
	for _, change := range freed {
		s.locks.release(s.now(), change.holder, change.key)
	}
	s.hand()
}

func (s *lockSim) giveBack(t *ticket) {
	if t != nil {
		s.admission.release(s.now(), t)
	}
	s.hand()
}

// unused gives back what nobody wants any more, key and all.
func (s *lockSim) unused(t *ticket) {
	if t.key != nil && s.planted != "lose a key" {
		s.locks.release(s.now(), t.key.holder, t.key.keys...)
	}
	s.giveBack(t)
}

// hand tells those who no longer wait, a moment later.
func (s *lockSim) hand() {
	for len(s.locks.granted)+len(s.admission.granted) > 0 {
		keys, tickets := s.locks.granted, s.admission.granted
		s.locks.granted, s.admission.granted = nil, nil
		for _, k := range keys {
			if k.ticket == nil {
				keeper := s.keepers[k.owner.id]
				keeper.asked = nil
				s.After(simEngine, time.Millisecond, func() { s.drive(k.owner.id, input{kind: inLocked}, nil) })
			} else if s.units(k.ticket) == "" {
				tickets = append(tickets, k.ticket)
			}
		}
		for _, t := range tickets {
			s.After(simEngine, time.Millisecond, func() {
				if s.x[t.owner.id] == nil {
					s.unused(t)
					return
				}
				s.drive(t.owner.id, input{kind: inAdmitted, step: t.request.step, item: t.request.item, grant: t}, nil)
			})
		}
	}
}

// store is the disk: a key has one holder.
func (s *lockSim) store(t Transition) {
	for _, lock := range t.Take {
		if other := s.held[lock.Key]; other != "" && other != lock.Execution {
			s.Fail(fmt.Errorf("%s takes %s, which %s holds", lock.Execution, lock.Key, other))
		}
		s.held[lock.Key] = lock.Execution
	}
	for _, lock := range t.Drop {
		if s.held[lock.Key] == lock.Execution {
			delete(s.held, lock.Key)
		}
	}
	s.records[t.Row.ID] = append(s.records[t.Row.ID], t.Record)
}

// runTool runs an attempt. I10, for keys: while a tool runs, its execution holds what the flow locks, and no other task holds its exclusive key.
func (s *lockSim) runTool(id string, a action) {
	x := s.x[id]
	task := taskName(id, a.call.Step, a.call.Item)
	for _, key := range x.Locks {
		if s.held[key] != id {
			s.Fail(fmt.Errorf("step %s of %s runs, and %s is held by %q", a.call.Step, id, key, s.held[key]))
		}
	}
	key := x.Steps[s.p.index[a.call.Step]].Tasks[a.call.Item].Lock
	if other := s.inside[key]; key != "" && other != "" && other != task {
		s.Fail(fmt.Errorf("%s and %s meet on %s", task, other, key))
	}
	if s.places++; s.places > 2 {
		s.Fail(fmt.Errorf("%d run at a time, of two", s.places))
	}
	if key != "" {
		s.inside[key] = task
	}
	dice := s.Rand().IntN(100)
	if s.Healing() {
		dice = 99
	}
	s.After(simEngine, time.Duration(10+s.Rand().IntN(1500))*time.Millisecond, func() {
		s.places--
		if key != "" {
			delete(s.inside, key)
		}
		s.giveBack(a.grant)
		result := Result{Output: []byte(`{"ok":true}`)}
		if dice < 10 {
			result = Result{Error: &Error{Code: "failed", Message: "no luck"}}
		}
		s.drive(id, ended(a.call, result), nil)
	})
}

// check: everything has ended, and nobody holds anything.
func (s *lockSim) check() error {
	for _, id := range slices.Sorted(maps.Keys(s.records)) {
		x, found := refold(func(int) (*Definition, error) { return &s.p.Definition, nil }, id, s.records[id])
		if len(found) > 0 {
			return fmt.Errorf("the store: %s: %v", id, found)
		}
		if !x.State.Ended() {
			return fmt.Errorf("%s has not ended: it is %s at %s and waits for %q", id, x.State, x.Step, x.waitsFor())
		}
	}
	if len(s.held) > 0 {
		return fmt.Errorf("everybody has ended, and %v is held", s.held)
	}
	return nil
}

func lockSimProgram(t *testing.T) *program {
	t.Helper()
	tools := NewTools()
	tools.add(Manifest{Name: "keyed", Effect: Keyed}, nil)
	tools.add(Manifest{Name: "pure", Effect: Pure}, nil)
	p, faults := compile([]byte(lockSimFlow), tools)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	p.Version = 1
	return p
}

func lockSimConfig(seeds int) sim.Config {
	return sim.Config{Nodes: []string{simEngine}, Seeds: seeds, Duration: 5 * time.Minute, Within: 15 * time.Second, Kinds: []sim.Kind{sim.Crash, sim.Crash, sim.ClockJump}}
}

// Through crashes at any moment: two never meet on a key, places are not exceeded, and everybody ends.
func TestLockSimulation(t *testing.T) {
	t.Parallel()
	if failure := sim.Explore(lockSimConfig(sim.Seeds(200)), lockScenario(lockSimProgram(t), "")); failure != nil {
		t.Fatal(failure)
	}
}

// Each planted bug is found within 100 seeds.
func TestLockSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, planted := range []string{"ignore holders", "forget locks", "lose a key", "crowd"} {
		t.Run(planted, func(t *testing.T) {
			t.Parallel()
			failure := sim.Explore(lockSimConfig(100), lockScenario(lockSimProgram(t), planted))
			if failure == nil {
				t.Fatal("not found within 100 seeds")
			}
			t.Logf("found after %d seeds: %v", failure.Runs, failure.Err)
		})
	}
}
