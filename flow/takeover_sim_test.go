package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// The servers of this simulation are the membership and the machine of the product, with a shell that is fakes. The database is a model of what
// storetest.RunShared holds the stores to.

const (
	sharedDB        = "db"
	sharedHeartbeat = time.Second
	sharedFlows     = 60
)

const sharedFlow = `
flow: shared
steps:
  - {name: a, tool: keyed}
  - {name: b, tool: probed, retry: {attempts: 9, backoff: 100ms}}
  - {name: c, tool: keyed, each: "[1, 2, 3]", parallel: 2}
  - {name: rest, sleep: 4s}
  - {name: d, tool: pure}
  - {name: e, tool: keyed}
`

func sharedProgram(t *testing.T) *program {
	t.Helper()
	tools := NewTools()
	for _, m := range []Manifest{
		{Name: "keyed", Effect: Keyed}, {Name: "probed", Effect: Probe, Probe: "probe"}, {Name: "pure", Effect: Pure}, {Name: "probe", Effect: Pure},
	} {
		tools.add(m, nil)
	}
	p, faults := compile([]byte(sharedFlow), tools)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	p.Version = 1
	return p
}

// sharedServer is a process: it can crash, and it can be stopped and go on.
type sharedServer struct {
	*sharedWorld
	name string

	life    int
	stopped bool
	late    []func() // what happens to it when it goes on
	part    membership
	runs    map[string]*sharedRun
	resting *resting
	asking  bool // a call of the membership's is under way
	unsure  bool
	ticks   int
}

// sharedRun is an execution that a server runs.
type sharedRun struct {
	s       *sharedServer
	owner   int64
	x       *Execution
	inbox   []input
	writing bool
	gone    bool
}

// do runs f in the process, if it is the one that was meant, at the latest when it goes on.
func (s *sharedServer) do(life int, f func()) {
	switch {
	case !s.Up(s.name) || s.life != life:
	case s.stopped:
		s.late = append(s.late, func() { s.do(life, f) })
	default:
		f()
	}
}

func (s *sharedServer) after(d time.Duration, f func()) {
	life := s.life
	s.After(s.name, d, func() { s.do(life, f) })
}

// ask calls the database. A call that is not answered within a second fails; it may have been carried out, or be so later.
func (s *sharedServer) ask(call func() any, then func(answer any, ok bool)) {
	life, done := s.life, false
	s.Send(s.name, sharedDB, func() {
		answer := call()
		s.Send(sharedDB, s.name, func() {
			s.do(life, func() {
				if !done {
					done = true
					then(answer, true)
				}
			})
		})
	})
	s.after(time.Second, func() {
		if !done {
			done = true
			then(nil, false)
		}
	})
}

var errAway = errors.New("the database is away")

// tick is the loop of Engine.join.
func (s *sharedServer) tick() {
	if s.asking {
		return
	}
	do, wait := s.part.decide(s.Now())
	s.ticks++
	tick, member, sent := s.ticks, s.part.member, s.Now()
	back := func(tell func()) {
		s.asking = false
		tell()
		s.tick()
	}
	switch do {
	case doWait:
		s.after(wait, func() {
			if s.ticks == tick {
				s.tick()
			}
		})
	case doJoin:
		s.asking = true
		s.ask(func() any { return s.join() }, func(answer any, ok bool) {
			back(func() {
				if !ok {
					s.part.joined(s.Now(), 0, errAway)
					return
				}
				s.part.joined(s.Now(), answer.(int64), nil)
			})
		})
	case doBeat:
		s.asking = true
		type result struct {
			b   Beat
			err error
		}
		s.ask(func() any { b, err := s.beat(member); return result{b, err} }, func(answer any, ok bool) {
			back(func() {
				r, _ := answer.(result)
				if !ok {
					r.err = errAway
				}
				r.b.Orphans = r.b.Orphans || s.unsure
				s.part.beaten(sent, s.Now(), r.b, r.err)
			})
		})
	case doClaim:
		s.asking = true
		type result struct {
			rows []Row
			err  error
		}
		unsure := s.unsure
		s.ask(func() any { rows, err := s.claim(member, unsure); return result{rows, err} }, func(answer any, ok bool) {
			back(func() {
				r, _ := answer.(result)
				if s.unsure = !ok; !ok {
					r.err = errAway
				}
				s.part.claimed(s.Now(), len(r.rows), 2, r.err)
				for _, row := range r.rows {
					if s.rests(row.Wake) {
						s.unread++
						if s.planted != "takes over without the alarm" {
							s.resting.set(row.Wake.At, row.ID, member)
						}
						continue
					}
					s.adopt(row.ID, member)
				}
				s.part.adopted()
			})
		})
	case doDrop:
		for _, id := range slices.Sorted(maps.Keys(s.runs)) {
			s.runs[id].gone = true
		}
		clear(s.runs)
		s.resting.forget(member)
		s.part.dropped(s.Now())
		s.unsure = false
		s.tick()
	}
}

// rests reports whether an execution waits for long enough to leave memory.
func (s *sharedServer) rests(w Wake) bool {
	return w.Kind == WakeTimer && w.At.Sub(s.clock()) > sharedHeartbeat
}

// wakes has the server wake, again and again, those whose time has come.
func (s *sharedServer) wakes() {
	s.Every("", sharedHeartbeat/4, func() {
		if !s.Up(s.name) || s.stopped {
			return
		}
		rung, _ := s.resting.due(s.clock())
		for _, a := range rung {
			if a.member == s.part.current() {
				s.adopt(a.id, a.member)
			}
		}
	})
}

// adopt loads an execution and goes on with it. Reads are not what this simulation is about: they do not fail.
func (s *sharedServer) adopt(id string, member int64) {
	if s.runs[id] != nil {
		return
	}
	x, found := refold(func(int) (*Definition, error) { return &s.p.Definition, nil }, id, s.records[id])
	if len(found) > 0 {
		s.Fail(fmt.Errorf("%s: %v", id, found))
		return
	}
	if x.State.Ended() {
		return
	}
	x.owner = member
	r := &sharedRun{s: s, owner: member, x: x}
	s.runs[id] = r
	s.resting.clear(id)
	r.post(input{kind: inRecover})
}

// begin starts an execution, as the server that was asked.
func (s *sharedServer) begin() {
	member := s.part.current()
	if member == 0 || s.sharedWorld.asked == sharedFlows || s.Healing() {
		return
	}
	s.sharedWorld.asked++
	id := fmt.Sprintf("x%d", s.sharedWorld.asked)
	r := &sharedRun{s: s, owner: member, x: newExecution(&s.p.Definition, id)}
	r.x.owner = member
	s.runs[id] = r
	m := &machine{p: s.p, x: r.x, now: s.clock()}
	m.emit(Event{Kind: EventStarted, Flow: "shared", Version: 1})
	m.step(input{kind: inGo})
	r.write(m, 0, func() { s.acked[id] = true })
}

func (s *sharedServer) clock() time.Time { return s.Clock(s.name).UTC().Truncate(time.Microsecond) }

func (r *sharedRun) post(in input) {
	r.inbox = append(r.inbox, in)
	if r.writing || r.gone {
		return
	}
	m := &machine{p: r.s.p, x: r.x, now: r.s.clock()}
	prev := r.x.Seq
	for _, one := range r.inbox {
		m.step(one)
	}
	r.inbox = nil
	if len(m.events) == 0 {
		r.perform(m.actions)
		return
	}
	r.write(m, prev, func() {})
}

// write commits, again and again while the database is away.
func (r *sharedRun) write(m *machine, prev int64, done func()) {
	r.writing = true
	t := m.transition(prev)
	again := false
	var try func()
	try = func() {
		second := again
		if r.s.planted == "writes as who it is now" {
			t.Row.Owner = r.s.part.current()
		}
		r.s.ask(func() any { return r.s.commit(&t, second) }, func(answer any, ok bool) {
			fate, _ := answer.(error)
			switch {
			case !ok:
				again = true
				r.s.after(50*time.Millisecond, try)
			case fate != nil:
				r.gone = true
				if r.s.runs[r.x.ID] == r {
					delete(r.s.runs, r.x.ID)
				}
				if errors.Is(fate, ErrFenced) {
					r.s.part.lost(r.owner, fate)
					r.s.part.wake(r.s.Now())
					r.s.tick()
				}
			default:
				r.writing = false
				done()
				r.perform(m.actions)
				if len(r.inbox) == 0 && !r.gone && r.s.rests(t.Row.Wake) {
					r.gone = true
					delete(r.s.runs, r.x.ID)
					r.s.resting.set(t.Row.Wake.At, r.x.ID, r.owner)
					return
				}
				if r.x.State.Ended() && r.s.runs[r.x.ID] == r {
					delete(r.s.runs, r.x.ID)
				}
				if len(r.inbox) > 0 && !r.gone {
					in := r.inbox[len(r.inbox)-1]
					r.inbox = r.inbox[:len(r.inbox)-1]
					r.post(in)
				}
			}
		})
	}
	try()
}

// perform has tools run. One whose run was dropped still has its effect: it is stopped too late.
func (r *sharedRun) perform(actions []action) {
	for _, a := range actions {
		if a.kind == actTimer {
			due := input{kind: inDue, step: a.call.Step, item: a.call.Item, undo: a.call.Undo, at: a.at}
			r.s.after(a.at.Sub(r.s.clock()), func() { r.post(due) })
			continue
		}
		if a.kind != actRun || r.gone {
			continue
		}
		took := time.Duration(5+r.s.Rand().IntN(3000)) * time.Millisecond
		effect := func() { r.s.effect(a.call) }
		if r.s.Rand().IntN(2) == 0 { // a process of its own, which goes on while the server is stopped
			r.s.After(r.s.name, took/2, effect)
		} else {
			r.s.after(took/2, effect)
		}
		r.s.after(took, func() {
			result := Result{Output: json.RawMessage(`{}`)}
			if a.call.Probe {
				result.Output = mustJSON(map[string]any{"done": r.s.applied[a.call.Key]})
			}
			r.post(ended(a.call, result))
		})
	}
}

func (w *sharedWorld) effect(c Call) {
	if c.Probe || c.Tool == "pure" {
		return
	}
	spot := fmt.Sprintf("%s/%s/%d", c.Execution, c.Step, c.Item)
	if w.effects[spot] == nil {
		w.effects[spot] = map[string]bool{}
	}
	w.effects[spot][c.Key], w.applied[c.Key] = true, true
	if len(w.effects[spot]) > 1 {
		w.Fail(fmt.Errorf("step %s has its effect under %d keys", spot, len(w.effects[spot])))
	}
}

// sharedScenario has three servers start executions and end them, whatever happens to two of them at a time and to the database.
func sharedScenario(p *program, planted string, total *sharedTotal) sim.Scenario {
	return sharedRounds(p, planted, true, total)
}

func sharedRounds(p *program, planted string, stops bool, total *sharedTotal) sim.Scenario {
	return func(world *sim.World) func() error {
		w := &sharedWorld{
			World: world, p: p, planted: planted, rows: map[string]*Row{}, records: map[string][]Record{}, disk: map[string]*Execution{},
			members: map[int64]*sharedMember{}, acked: map[string]bool{}, effects: map[string]map[string]bool{}, applied: map[string]bool{}, crashed: map[int64]time.Time{},
		}
		for _, name := range sharedNodes[:3] {
			s := &sharedServer{
				sharedWorld: w, name: name, part: membership{heartbeat: sharedHeartbeat}, runs: map[string]*sharedRun{}, resting: &resting{changed: make(chan struct{}, 1)},
			}
			w.servers = append(w.servers, s)
			world.OnCrash(name, func() {
				w.crashed[s.part.member] = w.Now()
				for _, r := range s.runs {
					r.gone = true
				}
				s.life++
				s.stopped, s.late, s.runs, s.asking, s.unsure, s.part = false, nil, map[string]*sharedRun{}, false, false, membership{heartbeat: sharedHeartbeat}
				s.resting = &resting{changed: make(chan struct{}, 1)}
			}, func() { s.tick() })
			s.tick()
			s.starts()
			s.wakes()
			if stops {
				s.stops()
			}
		}
		return func() error {
			total.takeovers += w.takeover
			total.unread += w.unread
			total.slowest = max(total.slowest, w.slowest)
			for id := range w.acked {
				if w.rows[id] == nil {
					return fmt.Errorf("%s was acknowledged and is lost", id)
				}
			}
			for id, row := range w.rows {
				if row.State != Done {
					return fmt.Errorf("%s has not ended: it is %s at step %s, woken by %+v, owned by %d", id, row.State, row.Step, row.Wake, row.Owner)
				}
			}
			return nil
		}
	}
}

// starts has a server start executions, for as long as there are some to start.
func (s *sharedServer) starts() {
	s.Every("", 700*time.Millisecond, func() {
		if s.Up(s.name) && !s.stopped {
			s.begin()
		}
	})
}

// stops has the process stopped now and then, for less than its lease or for longer.
func (s *sharedServer) stops() {
	s.Every("", time.Duration(8+s.Rand().IntN(8))*time.Second, func() {
		if s.Healing() || !s.Up(s.name) || s.stopped || s.Rand().IntN(2) == 0 {
			return
		}
		life := s.life
		s.stopped = true
		s.Trace("%s is stopped", s.name)
		s.After("", time.Duration(200+s.Rand().IntN(8000))*time.Millisecond, func() {
			if s.life != life {
				return
			}
			s.stopped = false
			s.Trace("%s goes on", s.name)
			late := s.late
			s.late = nil
			for _, f := range late {
				f()
			}
		})
	})
}

type sharedTotal struct {
	takeovers, unread int
	slowest           time.Duration
}

var sharedNodes = []string{"s0", "s1", "s2", sharedDB}

func sharedConfig(seeds int) sim.Config {
	return sim.Config{
		Nodes: sharedNodes, Seeds: seeds, Duration: 140 * time.Second, Faults: 14,
		Kinds: []sim.Kind{sim.Crash, sim.Cut, sim.Delay, sim.ClockJump},
	}
}

// Servers crash, stop and go on, lose the database and its answers, and the database is cut off: every execution that was acknowledged ends, with one result for
// each step and one key for its effect, and no owner finds that another has written.
func TestTakeoverSimulation(t *testing.T) {
	t.Parallel()
	var total sharedTotal
	seeds := sim.Seeds(200)
	if failure := sim.Explore(sharedConfig(seeds), sharedScenario(sharedProgram(t), "", &total)); failure != nil {
		t.Fatal(failure)
	}
	t.Logf("%d takeovers, %d of them of what rests, under %d seeds", total.takeovers, total.unread, seeds)
	if total.takeovers < 5*seeds || total.unread < seeds {
		t.Errorf("%d takeovers, %d of them of what rests, under %d seeds: the simulation is too quiet to tell anything", total.takeovers, total.unread, seeds)
	}
}

// Each planted bug is found within 100 seeds.
func TestTakeoverSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, planted := range []string{"no fence", "claims without a condition", "writes as who it is now", "numbers come again", "forgets what it asked", "takes over without the alarm"} {
		t.Run(planted, func(t *testing.T) {
			t.Parallel()
			config := sharedConfig(100)
			config.Faults = 14
			failure := sim.Explore(config, sharedScenario(sharedProgram(t), planted, &sharedTotal{}))
			if failure == nil {
				t.Fatal("not found within 100 seeds")
			}
			t.Logf("found after %d seeds: %v", failure.Runs, failure.Err)
		})
	}
}

// When a server dies and nothing else happens, what it ran is claimed within three heartbeats.
func TestTakeoverWithinThreeHeartbeats(t *testing.T) {
	t.Parallel()
	p := sharedProgram(t)
	var total sharedTotal
	for seed := range uint64(200) {
		plan := sim.Plan{Seed: seed, Faults: []sim.Fault{{
			Kind: sim.Crash, Node: sharedNodes[seed%3], At: 10*time.Second + time.Duration(seed)*37*time.Millisecond, For: 20 * time.Second,
		}}}
		if failure := sim.Play(sharedConfig(1), plan, sharedRounds(p, "", false, &total)); failure != nil {
			t.Fatal(failure)
		}
	}
	if total.takeovers < 200 || total.slowest > 3*sharedHeartbeat {
		t.Errorf("%d takeovers, the slowest after %s: want all within three heartbeats of %s", total.takeovers, total.slowest, sharedHeartbeat)
	}
	t.Logf("%d takeovers, the slowest after %s: heartbeat %s", total.takeovers, total.slowest, sharedHeartbeat)
}
