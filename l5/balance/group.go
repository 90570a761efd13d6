package balance

import (
	"fmt"
	"slices"
	"time"
)

// Config of a Group. The zero value of a field means its default.
type Config struct {
	// EjectFor is how long an instance is ejected the first time; each further time in a row doubles it up to
	// EjectMax. Default: 1 s and 1 min.
	EjectFor, EjectMax time.Duration
	// MaxEjected bounds the share of a service's weight that is taken away on this caller's own evidence: by ejection
	// and by latency, together. Default: 0.5.
	MaxEjected float64
	// TrialShare is the share of its weight that an instance gets on trial. Default: 0.1.
	TrialShare float64
	// TrialSuccesses is how many calls must succeed on trial, none failing. Default: 3.
	TrialSuccesses int
	// TrialFor is how long a trial lasts at most: without a failure until then the instance is up, for a caller of few calls.
	// Default: 10 s.
	TrialFor time.Duration
	// ForgetAfter is how long an instance must have been up for the ejection time to start over. Default: 1 min.
	ForgetAfter time.Duration
	// SlowRatio is how many times the latency of its faster peers an instance may have before it gets less. Default: 2.
	SlowRatio float64
	// SlowMargin is the least difference in latency that counts. Default: 1 ms.
	SlowMargin time.Duration
}

func (c Config) defaults() Config {
	setDuration(&c.EjectFor, time.Second)
	setDuration(&c.EjectMax, time.Minute)
	setDuration(&c.TrialFor, 10*time.Second)
	setDuration(&c.ForgetAfter, time.Minute)
	setDuration(&c.SlowMargin, time.Millisecond)
	setFloat(&c.MaxEjected, 0.5)
	setFloat(&c.TrialShare, 0.1)
	setFloat(&c.SlowRatio, 2)
	if c.TrialSuccesses <= 0 {
		c.TrialSuccesses = 3
	}
	c.EjectMax = max(c.EjectMax, c.EjectFor)
	return c
}

func setDuration(field *time.Duration, value time.Duration) {
	if *field <= 0 {
		*field = value
	}
}

func setFloat(field *float64, value float64) {
	if *field <= 0 {
		*field = value
	}
}

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

// Event is something that happened to the instances of a service.
type Event interface{ event() }

// Members replaces the membership: those that stay keep their health.
type Members []Member

// Member is one instance as the name service knows it.
type Member struct {
	Addr    string
	Weight  float64 // 0 takes no calls
	Suspect bool    // the registry doubts it, too
}

// Struck says that an instance reached its limit of failures in a row.
type Struck struct{ Addr, Evidence string }

// Probed says how a probe ended.
type Probed struct {
	Addr string
	OK   bool
}

// Window says what calls did since the last Window.
type Window []Sample

// Sample is what the calls of one instance did.
type Sample struct {
	Addr       string
	Successes  int64
	Failures   int64
	LatencySum time.Duration // of the successes
}

// Tick says that time went by.
type Tick struct{}

func (Members) event() {}
func (Struck) event()  {}
func (Probed) event()  {}
func (Window) event()  {}
func (Tick) event()    {}

// Action is something that the caller of Step is to do.
type Action interface{ action() }

// Probe asks whether an instance can be reached; the answer is a Probed.
type Probe struct{ Addr string }

// Moved says that an instance changed its state; it is to be told, nothing more.
type Moved struct {
	Addr     string
	From, To Health
	Reason   string
}

// Reweighed says that Weights differ from what they were: build a new table.
type Reweighed struct{}

func (Probe) action()     {}
func (Moved) action()     {}
func (Reweighed) action() {}

// Group is the health of one service's instances, as one caller sees it. It is for one goroutine.
//
//	        Struck                    time is over             Probed(true)            enough successes
//	Up ----------------> Ejected --------------------> Probing -------------> Trial ---------------------> Up
//	                       ^  ^                           |                     |
//	                       |  +----- Probed(false) -------+                     |
//	                       +------------------ Struck, or a failure ------------+
//	                        (each ejection in a row lasts twice as long as the last)
//
// What an ejected instance loses is bounded by Config.MaxEjected: beyond it, the instances ejected last keep their
// weight although they are down, and the group says that it panics. The bound does not shield an instance that
// the registry suspects, too. If nothing at all is left, everything with a weight is in, and the group panics.
type Group struct {
	config  Config
	members map[string]*member
	order   []*member // by address
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
	successes int           // Trial: in a row
	latency   float64       // estimate, in ns; 0: none
	heard     time.Time     // when the estimate was last moved
	slow      float64       // 1, or less for an instance slower than its peers
	weight    float64       // the result
	kept      bool          // down, but in use
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
	case Window:
		for _, s := range e {
			if m := g.members[s.Addr]; m != nil {
				actions = append(actions, g.sample(now, m, s)...)
			}
		}
		g.age(now)
		g.compare()
	case Tick:
		g.age(now)
		g.compare()
	}
	for _, m := range g.order {
		switch {
		case m.health == Ejected && !now.Before(m.until):
			actions = append(actions, m.move(now, Probing, "its ejection time is over"), Probe{m.Addr})
		case m.health == Trial && now.Sub(m.since) >= g.config.TrialFor:
			actions = append(actions, m.restore(now, fmt.Sprintf("%d calls and no failure in %v on trial", m.successes, g.config.TrialFor)))
		}
	}
	if g.weigh() {
		actions = append(actions, Reweighed{})
	}
	return actions
}

// Next returns when a Tick is due, if any.
func (g *Group) Next() (time.Time, bool) {
	var next time.Time
	for _, m := range g.order {
		if m.health == Ejected && (next.IsZero() || m.until.Before(next)) {
			next = m.until
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
			m = &member{since: now, slow: 1, key: Hash(want.Addr)}
		}
		m.Member = want
		g.members[want.Addr] = m
		g.order = append(g.order, m)
	}
	slices.SortFunc(g.order, func(a, b *member) int { return compareStrings(a.Addr, b.Addr) })
	g.compare()
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// eject takes m out for twice its last time.
func (g *Group) eject(now time.Time, m *member, evidence string) Moved {
	if m.health == Up && now.Sub(m.since) >= g.config.ForgetAfter {
		m.lasts = 0
	}
	m.lasts = min(max(2*m.lasts, g.config.EjectFor), g.config.EjectMax)
	m.until = now.Add(m.lasts)
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

// restore ends a trial. The record of the time before is void.
func (m *member) restore(now time.Time, reason string) Moved {
	m.latency = 0
	return m.move(now, Up, reason)
}
