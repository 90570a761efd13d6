package balance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Health is the state of one instance as this caller sees it.
type Health uint8

const (
	Up      Health = iota // takes its weight
	Ejected               // takes nothing until its time is over
	Probing               // takes nothing; a probe is under way
	Trial                 // the probe succeeded: takes a small share until enough calls succeed
)

// String returns the state's name.
func (h Health) String() string {
	return [...]string{"up", "ejected", "probing", "trial"}[h]
}

// MarshalText implements encoding.TextMarshaler.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// down reports whether an instance in this state is to take nothing.
func (h Health) down() bool { return h == Ejected || h == Probing }

// Group is the health of one service's instances, as one caller sees it. It is for one goroutine.
//
//	        Struck, or more                                                        enough successes,
//	        failures than peers    time is over             Probed(true)           or time without a failure
//	Up ----------------> Ejected --------------------> Probing -------------> Trial ---------------------> Up, slowly
//	                       ^  ^                           |                     |
//	                       |  +----- Probed(false) -------+                     |
//	                       +------------------ Struck, or a failure ------------+
//	                        (each ejection in a row lasts twice as long as the last)
//
// An Advice that an instance is down ejects it, too, and keeps it so; one that it is up puts it on trial.
//
// An instance that is slower than its peers stays up and loses weight, down to what it takes to hear that it healed.
// What an instance loses by ejection or for its latency is bounded by Config.MaxEjected: beyond it, the instances ejected last
// keep their weight although they are down, and the group says that it panics. The bound does not shield an instance that
// the registry suspects, too. If nothing at all is left, everything with a weight is in, and the group panics.
type Group struct {
	config  Config
	members map[string]*member
	order   []*member // by address
	known   bool      // the first Members came
	aged    time.Time // when what is recent was last aged
	panic   string    // why instances that are down are in use; empty: none is

	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing
}

// member is one instance.
type member struct {
	Member
	key       uint64
	health    Health
	reason    string
	since     time.Time     // of the state
	until     time.Time     // Ejected: when its time is over
	lasts     time.Duration // of the last ejection; 0: none to remember
	advised   bool          // Ejected: until another advice
	successes int           // Trial: in a row
	started   time.Time     // when a slow start began; zero: none is under way
	capacity  float64       // reported; 1 if not
	reported  time.Time     // when it was
	ok, bad   float64       // recent calls
	latency   float64       // estimate, in ns; 0: none
	heard     time.Time     // when the estimate was last moved
	stalled   time.Time     // since when calls are in flight of which none ended; zero: they end, or there are none
	sampled   time.Time     // when it was last in a Window
	slow      float64       // 1, or less for an instance slower than its peers
	factors   Factors       // the result
	weight    float64       // the product of factors
	kept      bool          // down, but in use
	shielded  bool          // slow, but shielded by the bound
}

// NewGroup returns a group without members.
func NewGroup(config Config) *Group {
	return &Group{config: config.defaults(), members: make(map[string]*member)}
}

// Step takes an event that happened at now. Time must not run backwards between calls; if it does, the group waits
// for it to catch up.
func (g *Group) Step(now time.Time, e Event) []Action {
	var actions []Action
	switch e := e.(type) {
	case Members:
		g.replace(now, e)
	case Struck:
		if m := g.members[e.Addr]; m != nil && (m.health == Up || m.health == Trial) {
			actions = append(actions, g.eject(now, m, e.Evidence))
		}
	case Probed:
		if m := g.members[e.Addr]; m != nil && m.health == Probing {
			actions = append(actions, g.probed(now, m, e.OK))
		}
	case Advice:
		if m := g.members[e.Addr]; m != nil {
			actions = append(actions, g.advise(now, m, e)...)
		}
	case Capacity:
		if m := g.members[e.Addr]; m != nil {
			m.report(now, e.Factor)
		}
	case Window:
		g.age(now)
		for _, s := range e {
			if m := g.members[s.Addr]; m != nil {
				m.sampled = now
				actions = append(actions, g.sample(now, m, s)...)
			}
		}
		for _, m := range g.order {
			if m.sampled != now {
				m.stalled = time.Time{} // no call went by, and none is in flight
			}
		}
		actions = append(actions, g.outliers(now)...)
		g.compare()
	case Tick:
		g.age(now)
		g.compare()
	}
	for _, m := range g.order {
		switch {
		case m.health == Ejected && !m.advised && !now.Before(m.until):
			actions = append(actions, m.move(now, Probing, "its ejection time is over"), Probe{m.Addr})
		case m.health == Trial && now.Sub(m.since) >= g.config.TrialFor:
			actions = append(actions, m.restore(now, fmt.Sprintf("%d calls and no failure in %v on trial", m.successes, g.config.TrialFor)))
		}
	}
	if g.weigh(now) {
		actions = append(actions, Reweighed{})
	}
	return actions
}

// Next returns when a Tick is due at the latest, if any.
func (g *Group) Next() (time.Time, bool) {
	var next time.Time
	due := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, m := range g.order {
		switch m.health {
		case Ejected:
			if !m.advised {
				due(m.until)
			}
		case Trial:
			due(m.since.Add(g.config.TrialFor))
		}
		if !m.started.IsZero() {
			due(m.started.Add(g.config.SlowStart))
		}
	}
	return next, !next.IsZero()
}

func (g *Group) replace(now time.Time, members Members) {
	old := g.members
	g.members = make(map[string]*member, len(members))
	g.order = g.order[:0:0]
	for _, want := range members {
		if g.members[want.Addr] != nil {
			continue
		}
		m := old[want.Addr]
		if m == nil {
			m = &member{since: now, slow: 1, capacity: 1, key: Hash(want.Addr)}
			if g.known && g.config.SlowStart > 0 {
				m.started = now
			}
		}
		m.Member = want
		g.members[want.Addr] = m
		g.order = append(g.order, m)
	}
	slices.SortFunc(g.order, func(a, b *member) int { return strings.Compare(a.Addr, b.Addr) })
	g.known = g.known || len(members) > 0
}

// eject takes m out for twice its last time.
func (g *Group) eject(now time.Time, m *member, evidence string) Moved {
	if m.health == Up && now.Sub(m.since) >= g.config.ForgetAfter {
		m.lasts = 0
	}
	m.lasts = min(max(2*m.lasts, g.config.EjectFor), g.config.EjectMax)
	m.until = now.Add(m.lasts)
	m.ok, m.bad = 0, 0
	m.started = time.Time{}
	return m.move(now, Ejected, fmt.Sprintf("%s; ejected for %v", evidence, m.lasts))
}

func (g *Group) probed(now time.Time, m *member, ok bool) Moved {
	if !ok {
		return g.eject(now, m, "it does not answer a probe")
	}
	m.successes = 0
	return m.move(now, Trial, fmt.Sprintf("it answers a probe; on trial at %.0f %% of its weight", 100*g.config.TrialShare))
}

func (m *member) move(now time.Time, to Health, reason string) Moved {
	moved := Moved{Addr: m.Addr, From: m.health, To: to, Reason: reason}
	m.health, m.reason, m.since = to, reason, now
	return moved
}

// sample takes one instance's part of a window.
func (g *Group) sample(now time.Time, m *member, s Sample) []Action {
	m.observe(now, s)
	if m.health != Trial {
		return nil
	}
	if s.Failures > 0 {
		return []Action{g.eject(now, m, "a call failed on trial")}
	}
	m.successes += int(s.Successes)
	if m.successes < g.config.TrialSuccesses {
		return nil
	}
	return []Action{m.restore(now, fmt.Sprintf("%d calls succeeded on trial", m.successes))}
}

// restore ends a trial. The record of the time before is void, and the weight comes back slowly.
func (m *member) restore(now time.Time, reason string) Moved {
	m.latency, m.ok, m.bad = 0, 0, 0
	m.started = now
	return m.move(now, Up, reason)
}
