package gray_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	seeded "github.com/zhiyun-ops/zhiyun/internal/sim"
)

// sim plays two rollouts of one service through the pure core, with faults from a seed: weights that cannot be
// read or set, sets that are lost, holes in the data, members that die, devices that turn bad, restarts, and
// persons. It keeps its own books, and checks the core's decisions against them.
type sim struct {
	rng      *rand.Rand
	bug      string
	now      time.Time
	rollouts []gray.Rollout
	shares   map[string]int     // in force
	bad      map[string]float64 // member, share of requests that fail
	traffic  []tick
	right    map[string]time.Time // stage of a rollout, since when its wanted shares were read back without a break
	fault    struct{ read, set, lose, gap, data, silent bool }
	stages   int // begun by a green gate
	aborted  int
}

type tick struct {
	at      time.Time
	members []gray.MemberOutcome
}

func newSim(seed uint64, bug string) *sim {
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 1)), bug: bug, now: time.Unix(1e9, 0).UTC(),
		shares: map[string]int{"old1": 100, "old2": 100, "a1": 0, "a2": 0, "b1": 0},
		bad:    make(map[string]float64), right: make(map[string]time.Time),
	}
	if s.rng.IntN(5) == 0 {
		delete(s.shares, "old1")
		delete(s.shares, "old2")
	}
	policy := gray.Deck()
	policy.Soak, policy.MaxStage, policy.GapReset, policy.LostAfter = 20*time.Second, 5*time.Minute, 10*time.Second, 15*time.Second
	policy.Curtail = s.rng.IntN(2) == 0
	for _, r := range []gray.Rollout{
		{ID: "a", New: []gray.Member{{ID: "a1", Cores: 8}, {ID: "a2", Cores: 4}}},
		{ID: "b", New: []gray.Member{{ID: "b1", Cores: 4}}},
	} {
		r.Service, r.Policy = "shop.cart", policy
		s.rollouts = append(s.rollouts, gray.Queue(s.now, r))
	}
	return s
}

// run plays the seed, and returns the first breach of an invariant.
func (s *sim) run() error {
	for range 250 {
		s.world()
		for i := range s.rollouts {
			if err := s.step(i); err != nil {
				return err
			}
		}
		if s.rng.IntN(60) == 0 {
			i := s.rng.IntN(len(s.rollouts))
			verb := []string{"abort", "promote", "pause", "resume", "resume"}[s.rng.IntN(5)]
			if next, _, err := gray.Order(s.now, s.rollouts[i], verb, "li", ""); err == nil {
				s.rollouts[i] = next
			}
		}
	}
	return s.rollBack()
}

// world lets time, traffic and faults go on.
func (s *sim) world() {
	seconds := 1 + s.rng.IntN(3)
	t := tick{at: s.now}
	s.now = s.now.Add(time.Duration(seconds) * time.Second)
	for _, id := range slices.Sorted(maps.Keys(s.shares)) {
		requests := int64(s.shares[id] * seconds * (1 + s.rng.IntN(3)))
		if s.fault.silent || requests == 0 {
			continue
		}
		failures := float64(requests) * (s.bad[id] + 0.002) * 2 * s.rng.Float64()
		m := gray.MemberOutcome{ID: id, Requests: requests, Failures: min(requests, int64(failures+s.rng.Float64())), Reports: 1}
		t.members = append(t.members, m)
	}
	s.traffic = append(s.traffic, t)
	for _, f := range []*bool{&s.fault.read, &s.fault.set, &s.fault.lose, &s.fault.gap, &s.fault.data, &s.fault.silent} {
		if *f {
			*f = s.rng.IntN(8) != 0
		} else {
			*f = s.rng.IntN(60) == 0
		}
	}
	members := []string{"a1", "a2", "b1"}
	switch id := members[s.rng.IntN(3)]; s.rng.IntN(150) {
	case 0:
		s.bad[id] = 0.3
	case 1:
		s.bad[id] = 0
	case 2:
		delete(s.shares, id)
	case 3:
		i := slices.IndexFunc(s.rollouts, func(r gray.Rollout) bool {
			return slices.ContainsFunc(r.New, func(m gray.Member) bool { return m.ID == id })
		})
		if _, there := s.shares[id]; there && !s.rollouts[i].Status.State.Final() {
			s.shares[id] = s.rng.IntN(101) // somebody else's hand
		}
	}
}

// window sums the traffic since from.
func (s *sim) window(from time.Time) []gray.MemberOutcome {
	sum := make(map[string]gray.MemberOutcome, 5)
	for _, t := range slices.Backward(s.traffic) {
		if t.at.Before(from) {
			break
		}
		for _, m := range t.members {
			have := sum[m.ID]
			sum[m.ID] = gray.MemberOutcome{ID: m.ID, Requests: have.Requests + m.Requests, Failures: have.Failures + m.Failures, Reports: have.Reports + 1}
		}
	}
	return slices.Collect(maps.Values(sum))
}

// step does for one rollout what a controller does, and checks it.
func (s *sim) step(i int) error {
	r := s.rollouts[i]
	if s.rng.IntN(10) == 0 { // a restart: only what is stored is left
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		r = gray.Rollout{}
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
	}
	o := gray.Observation{First: s.first(i), Shares: maps.Clone(s.shares)}
	if s.fault.read {
		o.Shares, o.SharesErr = nil, "down"
	}
	if !r.Status.InForce.IsZero() {
		if s.fault.data {
			o.WindowErr = "down"
		} else {
			o.Window = gray.Split(r, o.Shares, s.window(r.Status.WindowFrom))
			o.Window.Complete = !s.fault.gap
		}
	}
	s.book(r, o)
	next, effect := gray.Step(s.now, r, o, s.bug)
	s.rollouts[i] = next
	for _, e := range effect.Events {
		if err := s.check(r, next, o, e); err != nil {
			return fmt.Errorf("%v %s event %d (%s): %w", s.now, r.ID, e.Seq, e.Reason, err)
		}
	}
	if busy := s.busy(); busy > 1 {
		return fmt.Errorf("%d rollouts of one service move its weights", busy)
	}
	if effect.Set != nil && s.rng.IntN(20) != 0 { // sometimes a crash comes between commit and set
		s.set(effect.Set)
	}
	return nil
}

func (s *sim) set(shares map[string]int) {
	if s.fault.set || s.fault.lose {
		return
	}
	for id, percent := range shares {
		if _, there := s.shares[id]; there {
			s.shares[id] = percent
		}
	}
}

func (s *sim) busy() int {
	n := 0
	for _, r := range s.rollouts {
		if r.Status.State == gray.Running || r.Status.State == gray.Paused {
			n++
		}
	}
	return n
}

func (s *sim) first(i int) bool {
	for j, r := range s.rollouts {
		if j != i && (r.Status.State != gray.Queued && !r.Status.State.Final() || r.Status.State == gray.Queued && j < i) {
			return false
		}
	}
	return true
}

// book notes since when the wanted shares of a rollout have been seen in force.
func (s *sim) book(r gray.Rollout, o gray.Observation) {
	if o.Shares == nil {
		return // not seen: no break
	}
	for id, percent := range r.Wanted() {
		if have, there := o.Shares[id]; there && have != percent {
			delete(s.right, stage(r))
			return
		}
	}
	if s.right[stage(r)].IsZero() {
		s.right[stage(r)] = s.now
	}
}

// stage names a stage of a rollout.
func stage(r gray.Rollout) string { return fmt.Sprint(r.ID, r.Status.Stage) }

// check holds one transition against the invariants.
func (s *sim) check(r, next gray.Rollout, o gray.Observation, e gray.Event) error {
	switch e.Reason.Code {
	case gray.CodeGateGreen: // I4
		s.stages++
		since := s.right[stage(r)]
		if since.IsZero() || s.now.Sub(since) < r.Policy.Soak {
			return fmt.Errorf("I4: shares were right since %v only", since)
		}
		if from := r.Status.WindowFrom; !from.IsZero() && from.Before(since) {
			return fmt.Errorf("I4: evidence from %v counted, shares are right since %v", r.Status.WindowFrom, since)
		}
		if o.SharesErr != "" || o.WindowErr != "" || s.fault.gap {
			return fmt.Errorf("I4: green without data")
		}
		return s.green(r, next)
	case gray.CodeSuccessLow, gray.CodeFloorLow:
		s.aborted++
		if o.WindowErr != "" || s.fault.gap {
			return fmt.Errorf("red without data")
		}
	}
	return nil
}

// green judges a stage by the deck's rule, from the simulation's own books.
func (s *sim) green(r, next gray.Rollout) error {
	var newN, newF, oldN, oldF, cores int64
	for _, m := range s.window(r.Status.WindowFrom) {
		mine := slices.ContainsFunc(r.New, func(own gray.Member) bool { return own.ID == m.ID })
		_, there := s.shares[m.ID]
		switch {
		case mine && there && !slices.Contains(r.Status.Lost, m.ID):
			newN, newF = newN+m.Requests, newF+m.Failures
		case !mine:
			oldN, oldF = oldN+m.Requests, oldF+m.Failures
		}
	}
	for _, m := range r.New {
		if !slices.Contains(next.Status.Lost, m.ID) {
			cores += int64(m.Cores)
		}
	}
	if newN*4 < cores*200 {
		return fmt.Errorf("I4: green with %d requests for %d cores", newN, cores)
	}
	bar := 0.95
	if oldN > 0 {
		bar = 1 - float64(oldF)/float64(oldN) - 0.05
	}
	if rate := 1 - float64(newF)/float64(newN); rate <= bar {
		return fmt.Errorf("I4: green at %g, bar %g", rate, bar)
	}
	return nil
}

// rollBack aborts everything while faults last, then ends the faults: all must read 0 within a minute. I5
func (s *sim) rollBack() error {
	for i, r := range s.rollouts {
		next, effect, err := gray.Order(s.now, r, "abort", "li", "the end")
		if err != nil {
			return fmt.Errorf("I5: abort of a rollout that is %s: %w", r.Status.State, err)
		}
		s.rollouts[i] = next
		s.set(effect.Set)
	}
	for second := range 60 {
		if second == 10 {
			s.fault.read, s.fault.set, s.fault.lose = false, false, false
		}
		s.now = s.now.Add(time.Second)
		for i := range s.rollouts {
			if err := s.step(i); err != nil {
				return err
			}
		}
	}
	for _, r := range s.rollouts {
		for _, m := range r.New {
			if r.Status.State != gray.Aborted || s.shares[m.ID] != 0 {
				return fmt.Errorf("I5: rollout %s is %s, %s has %d %%", r.ID, r.Status.State, m.ID, s.shares[m.ID])
			}
		}
	}
	return nil
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	stages, aborted := 0, 0
	seeds := seeded.Seeds(300)
	for seed := range uint64(seeds) {
		s := newSim(seed, "")
		if err := s.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		stages, aborted = stages+s.stages, aborted+s.aborted
	}
	t.Logf("%d seeds: %d gates green, %d red", seeds, stages, aborted)
	if stages < seeds || aborted < seeds/10 {
		t.Errorf("the simulation is idle: %d gates green, %d red", stages, aborted)
	}
}

// A simulator that cannot fail proves nothing: each planted bug must be found within 100 seeds.
func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"no-soak", "hold-passes", "gap-counts", "abort-once", "no-queue", "stale-window"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				if err := newSim(seed, bug).run(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("100 seeds did not find it")
		})
	}
}
