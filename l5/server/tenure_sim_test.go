package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// The simulated fleet: servers that share a store, and agents each of which keeps a stream to one of them and has one
// instance. Servers crash, are cut off, stall, and their clocks jump; now and then all are restarted one after the other. No
// agent is ever at fault: whichever instance expires must have been out of every living server's hands for the grace period.

const (
	simBeat  = time.Second
	simGrace = 10 * time.Second
)

type fleet struct {
	*sim.World
	ctx     context.Context
	memory  *store.Memory
	log     []store.Event
	plant   string
	servers []*fleetServer
	agents  []*fleetAgent
	byName  map[string]*fleetAgent
	beaten  map[string]time.Time // when a server's beat last reached the store
	named   map[string][]string  // owners by record
	holders map[string][]string  // servers whose records name an owner, by owner
	held    map[string]time.Time // by owner: up to when a living server's record named it that does so no more
	gaps    map[string]gap       // by owner: the last time that no living server's record named it, if that is over
	expired int
}

// gap is a time.
type gap struct{ from, to time.Time }

type fleetServer struct {
	f       *fleet
	name    string
	tenure  *server.Tenure // nil while it is down
	expiry  *server.Expiry
	cursor  int   // into the log; -1: the records are not listed yet
	seen    int64 // revision
	life    int
	since   time.Time // of this life
	beats   int
	beaten  time.Time
	away    bool
	dirty   map[string]struct{}
	streams map[*fleetAgent]struct{}
	busy    bool // an order to the store is under way
}

type fleetAgent struct {
	name   string
	server *fleetServer
	life   int // of server
	since  time.Time
	heard  time.Time
}

// fleetScenario is a fleet of which all servers are restarted one after the other, if rolling says so or chance does.
func fleetScenario(servers, agents int, rolling bool, plant string) sim.Scenario {
	return func(w *sim.World) func() error {
		f := &fleet{World: w, ctx: context.Background(), memory: store.NewMemory(), plant: plant, byName: map[string]*fleetAgent{},
			beaten: map[string]time.Time{}, named: map[string][]string{}, holders: map[string][]string{}, held: map[string]time.Time{}, gaps: map[string]gap{}}
		for i := range servers {
			s := &fleetServer{f: f, name: nodeName(i)}
			f.servers = append(f.servers, s)
			w.OnCrash(s.name, s.crash, s.start)
			s.start()
		}
		for i := range agents {
			a := &fleetAgent{name: fmt.Sprintf("device-%06d", i)}
			f.agents = append(f.agents, a)
			f.byName[a.name] = a
			w.After("", time.Duration(w.Rand().Int64N(int64(3*time.Second))), func() { f.connect(a) })
			w.After("", time.Duration(w.Rand().Int64N(int64(5*time.Second))), func() { f.ping(a) })
		}
		if w.Rand().IntN(2) == 0 || rolling {
			for i, s := range f.servers {
				w.After("", 20*time.Second+time.Duration(i)*60*time.Second/time.Duration(servers), func() {
					if w.Up(s.name) {
						s.crash()
						s.start()
					}
				})
			}
		}
		return func() error {
			if f.expired > len(f.agents)/10 {
				return fmt.Errorf("%d of %d instances expired, and no agent was at fault", f.expired, len(f.agents))
			}
			return f.settled()
		}
	}
}

func nodeName(i int) string { return fmt.Sprintf("server-%02d", i) }

// settled is what holds once faults are long over: one server decides, every agent has a stream, and every server knows of
// all of them: no change was lost on its way.
func (f *fleet) settled() error {
	const lately = 5 * time.Second
	var errs []error
	keepers := 0
	for _, s := range f.servers {
		if s.tenure.Leads() {
			keepers++
		}
		for _, a := range f.agents {
			if a.server != nil && f.Now().Sub(s.since) > lately && f.Now().Sub(a.since) > lately && !s.tenure.Live(a.name) {
				errs = append(errs, fmt.Errorf("%s does not know that %s has a stream of %s since %v", s.name, a.name, a.server.name, f.Now().Sub(a.since)))
				break
			}
		}
	}
	if keepers != 1 {
		errs = append(errs, fmt.Errorf("%d servers decide, want one", keepers))
	}
	for _, a := range f.agents {
		if a.server == nil || a.life != a.server.life {
			errs = append(errs, fmt.Errorf("%s has no stream", a.name))
			break
		}
	}
	return errors.Join(errs...)
}

// commit is the store's side of a write; it keeps the log and the truth.
func (f *fleet) commit(ops []store.Op) (int64, error) {
	revision, err := f.memory.Commit(f.ctx, ops...)
	if err != nil {
		return 0, err
	}
	event := store.Event{Revision: revision}
	for _, op := range ops {
		switch op.Kind {
		case store.KindPut:
			event.Puts = append(event.Puts, store.Record{Key: op.Key, Value: op.Value, Revision: revision})
		case store.KindDelete:
			event.Deletes = append(event.Deletes, op.Key)
		}
		f.witness(op)
	}
	if n := len(f.log); n == 0 || f.log[n-1].Revision < revision { // one that changed nothing is not seen
		f.log = append(f.log, event)
	}
	return revision, nil
}

// witness keeps what is true: which living server's record names whom.
func (f *fleet) witness(op store.Op) {
	if name, ok := strings.CutPrefix(op.Key, server.BeatPrefix); ok && op.Kind == store.KindPut {
		f.beaten[name] = f.Now()
	}
	rest, ok := strings.CutPrefix(op.Key, server.HoldsPrefix)
	if !ok {
		return
	}
	name, _, _ := strings.Cut(rest, "/")
	before, after := f.named[rest], strings.Fields(string(op.Value))
	f.named[rest] = after
	for len(before) > 0 || len(after) > 0 { // both are in order
		switch {
		case len(before) == 0 || len(after) > 0 && after[0] < before[0]:
			if from := f.last(after[0]); f.Now().After(from) && !from.IsZero() {
				f.gaps[after[0]] = gap{from, f.Now()}
			}
			f.holders[after[0]] = append(f.holders[after[0]], name)
			after = after[1:]
		case len(after) == 0 || before[0] < after[0]:
			f.held[before[0]] = f.last(before[0])
			f.holders[before[0]] = slices.DeleteFunc(f.holders[before[0]], func(s string) bool { return s == name })
			before = before[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
}

// until is up to when a server counts as living.
func (f *fleet) until(name string) time.Time {
	until := f.beaten[name].Add(server.Deadly * simBeat)
	if until.After(f.Now()) {
		return f.Now()
	}
	return until
}

// last is when a living server's record last named an owner.
func (f *fleet) last(owner string) time.Time {
	last := f.held[owner]
	for _, name := range f.holders[owner] {
		if until := f.until(name); until.After(last) {
			last = until
		}
	}
	return last
}

// check fails if an owner's instance expires too early. One that came back when its time was over all but a moment may be too
// late: the keeper does not know yet.
func (f *fleet) check(owner string) {
	const unknown = 4 * time.Second // two messages that are delayed, and the pace at which a keeper reads and decides
	const early = simGrace / 2      // a keeper's clock may jump by less than it can notice
	last := f.last(owner)
	away := f.Now().Sub(last)
	if g := f.gaps[owner]; away < early && f.Now().Sub(g.to) < unknown {
		away = g.to.Sub(g.from)
	}
	if away < early {
		f.Fail(fmt.Errorf("the instance of %s expired, and a living server held it %v ago", owner, f.Now().Sub(last)))
	}
}

func (f *fleet) connect(a *fleetAgent) {
	s := f.servers[f.Rand().IntN(len(f.servers))]
	f.Send(s.name, s.name, func() {
		if a.server != nil || s.tenure == nil || s.away {
			return
		}
		a.server, a.life, a.since, a.heard = s, s.life, f.Now(), f.Now()
		s.streams[a] = struct{}{}
		s.stream(a, 1)
	})
	f.After("", time.Second+time.Duration(f.Rand().Int64N(int64(2*time.Second))), func() {
		if a.server == nil {
			f.connect(a)
		}
	})
}

// ping is HTTP/2's, both ways: a peer that is silent for 10 s is gone.
func (f *fleet) ping(a *fleetAgent) {
	if s := a.server; s != nil {
		gone := s.life != a.life
		if !gone {
			f.Send(s.name, s.name, func() {
				if a.server == s && a.life == s.life {
					a.heard = f.Now()
				}
			})
		}
		if gone || f.Now().Sub(a.heard) > 10*time.Second {
			f.drop(a)
		}
	}
	f.After("", 2*time.Second, func() { f.ping(a) })
}

// drop ends a stream on both sides, and lets the agent connect again after a jittered wait.
func (f *fleet) drop(a *fleetAgent) {
	s := a.server
	a.server = nil
	if s != nil && s.life == a.life && s.tenure != nil {
		delete(s.streams, a)
		s.stream(a, -1)
	}
	f.After("", time.Duration(f.Rand().Int64N(int64(3*time.Second))), func() {
		if a.server == nil {
			f.connect(a)
		}
	})
}

func (s *fleetServer) crash() {
	s.tenure = nil
	s.life++
	streams := s.streams
	s.streams = map[*fleetAgent]struct{}{}
	for _, a := range slices.SortedFunc(keys(streams), func(a, b *fleetAgent) int { return strings.Compare(a.name, b.name) }) {
		s.f.drop(a)
	}
}

func keys(m map[*fleetAgent]struct{}) func(func(*fleetAgent) bool) {
	return func(yield func(*fleetAgent) bool) {
		for a := range m {
			if !yield(a) {
				return
			}
		}
	}
}

func (s *fleetServer) start() {
	s.life++
	self := fmt.Sprintf("%s-%d", s.name, s.life) // a name of this life's own
	s.tenure, s.expiry = server.NewTenure(self, simBeat, s.f.plant), server.NewExpiry(60, 0.3)
	s.cursor, s.seen, s.beats, s.away, s.busy = -1, 0, 0, false, false
	s.dirty, s.streams = map[string]struct{}{}, map[*fleetAgent]struct{}{}
	s.beaten, s.since = s.clock(), s.f.Now()
	life := s.life
	every := func(d time.Duration, do func()) {
		var again func()
		again = func() {
			if s.life == life && s.tenure != nil {
				do()
				s.f.After(s.name, d, again)
			}
		}
		s.f.After(s.name, d, again)
	}
	every(simBeat, func() {
		s.beats++
		sent := s.clock()
		s.write([]store.Op{store.Put(server.BeatPrefix+self, []byte(strconv.Itoa(s.beats)))}, func(error) {
			if sent.After(s.beaten) || s.clock().Before(s.beaten) {
				s.beaten = sent
			}
			s.away = false
		})
		if s.clock().Sub(s.beaten) > (server.Deadly-1)*simBeat && !s.tenure.Alone() && !s.away {
			s.away = true
			streams := s.streams
			s.streams = map[*fleetAgent]struct{}{}
			for _, a := range slices.SortedFunc(keys(streams), func(a, b *fleetAgent) int { return strings.Compare(a.name, b.name) }) {
				s.f.drop(a)
			}
		}
	})
	every(100*time.Millisecond, s.read)
	every(100*time.Millisecond, s.note)
	every(simBeat/2, s.decide)
}

func (s *fleetServer) clock() time.Time { return s.f.Clock(s.name) }

// stream counts a stream of an agent.
func (s *fleetServer) stream(a *fleetAgent, step int) {
	if s.tenure.Stream(s.clock(), a.name, step) {
		s.dirty[server.ShardOf(a.name)] = struct{}{}
	}
}

// write sends a commit to the store, and its outcome back.
func (s *fleetServer) write(ops []store.Op, done func(error)) {
	life, once := s.life, false
	s.f.Send(s.name, s.name, func() {
		if once {
			return
		}
		once = true
		_, err := s.f.commit(ops)
		answered := false
		s.f.Send(s.name, s.name, func() {
			if s.life == life && s.tenure != nil && !answered {
				answered = true
				done(err)
			}
		})
	})
}

// read takes what the store has committed since, in order: at first all records, then what came after.
func (s *fleetServer) read() {
	life, from := s.life, s.cursor
	s.f.Send(s.name, s.name, func() {
		var batch []store.Event
		to := len(s.f.log)
		if from >= 0 {
			batch = s.f.log[from:to]
		} else {
			records, revision, err := s.f.memory.List(s.f.ctx, "")
			if err != nil {
				s.f.Fail(err)
				return
			}
			batch = []store.Event{{Revision: revision, Puts: records}}
		}
		s.f.Send(s.name, s.name, func() {
			if s.life != life || s.tenure == nil || s.cursor != from {
				return
			}
			for _, event := range batch {
				s.take(event)
			}
			if s.cursor = to; from < 0 {
				for _, a := range s.f.agents {
					s.tenure.Expect(s.clock(), a.name)
				}
			}
		})
	})
}

// take takes one commit, which is to be the next (I8).
func (s *fleetServer) take(event store.Event) {
	if event.Revision <= s.seen && s.seen > 0 {
		s.f.Fail(fmt.Errorf("%s saw revision %d after %d", s.name, event.Revision, s.seen))
	}
	s.seen = event.Revision
	for _, record := range event.Puts {
		if record.Key == server.ExpiriesKey {
			s.expiry.Decode(s.clock(), record.Value, true)
		} else {
			s.tenure.Put(s.clock(), record)
		}
	}
	for _, key := range event.Deletes {
		s.tenure.Remove(s.clock(), key)
	}
}

// note writes what the server holds.
func (s *fleetServer) note() {
	if s.busy || len(s.dirty) == 0 {
		return
	}
	s.busy = true
	dirty := s.dirty
	s.dirty = map[string]struct{}{}
	life := s.life
	noted := false
	s.write(s.tenure.Hold(dirty), func(error) { s.busy, noted = false, true })
	s.f.After(s.name, 3*time.Second, func() { // no answer: again
		if s.life == life && !noted {
			s.busy = false
			for shard := range dirty {
				s.dirty[shard] = struct{}{}
			}
		}
	})
}

// decide is the keeper's part, or becoming it.
func (s *fleetServer) decide() {
	now := s.clock()
	s.tenure.Tick(now)
	s.tenure.Take()
	if s.tenure.Vacant() {
		s.write([]store.Op{store.Put(server.KeeperKey, []byte(s.tenure.Self())).At(s.tenure.Fence())}, func(error) {})
		return
	}
	if !s.tenure.Leads() {
		return
	}
	var due []string
	for _, owner := range s.tenure.Due(now, simGrace) {
		if s.f.byName[owner] != nil {
			due = append(due, owner)
		}
	}
	if len(due) == 0 {
		return
	}
	expire, _ := s.expiry.Decide(now, "s", due, len(s.f.agents))
	if len(expire) == 0 {
		return
	}
	ops := []store.Op{store.Check(server.KeeperKey, s.tenure.Fence()), store.Put(server.ExpiriesKey, s.expiry.Encode(now))}
	s.write(ops, func(err error) {
		if errors.Is(err, store.ErrConflict) {
			return
		}
		for _, owner := range expire {
			s.f.check(owner)
			delete(s.f.byName, owner)
			s.f.expired++
		}
	})
}

func fleetConfig(servers, seeds int) sim.Config {
	config := sim.Config{Seeds: seeds, Duration: 100 * time.Second, Faults: 6, Kinds: []sim.Kind{sim.Crash, sim.Cut, sim.Delay, sim.Duplicate, sim.ClockJump}}
	for i := range servers {
		config.Nodes = append(config.Nodes, nodeName(i))
	}
	return config
}

// No mass false death: whatever happens to servers, the store and clocks, instances of agents that are well stay.
// ZHIYUN_LONG=1 plays one run at full scale instead, wholeFleet: 100 servers and 161,679 agents; another number is how many
// agents.
func TestFleetSimulation(t *testing.T) {
	t.Parallel()
	if agents, err := strconv.Atoi(os.Getenv("ZHIYUN_LONG")); err == nil {
		if agents <= 1 {
			agents = 161_679
		}
		wholeFleet(t, 100, agents)
		return
	}
	seeds := sim.Seeds(40)
	if testing.Short() {
		seeds = 5
	}
	if failure := sim.Explore(fleetConfig(5, seeds), fleetScenario(5, 60, false, "")); failure != nil {
		t.Fatal(failure)
	}
}

// wholeFleet plays a rolling restart of all servers, into which a partition falls that cuts a third of them off the store
// and their agents, and with it crashes, slow networks and clocks that jump.
func wholeFleet(t *testing.T, servers, agents int) {
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // each server has its own picture of all agents
	config := fleetConfig(servers, 1)
	config.Faults = servers / 5
	plan := sim.NewPlan(config, 1)
	for i := range servers / 3 {
		plan.Faults = append(plan.Faults, sim.Fault{Kind: sim.Cut, Node: nodeName(3 * i), At: 40 * time.Second, For: 15 * time.Second})
	}
	began := time.Now()
	if failure := sim.Play(config, plan, fleetScenario(servers, agents, true, "")); failure != nil {
		t.Fatal(failure)
	}
	t.Logf("%d servers and %d agents, %d faults: %v", servers, agents, len(plan.Faults), time.Since(began).Round(time.Second))
}

func TestFleetSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"a blind server judges"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			failure := sim.Explore(fleetConfig(5, 100), fleetScenario(5, 60, false, bug))
			if failure == nil {
				t.Fatal("not found in 100 seeds")
			}
			t.Logf("found after %d seeds with %d faults: %v", failure.Runs, len(failure.Plan.Faults), failure.Err)
		})
	}
}
