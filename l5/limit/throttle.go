package limit

import (
	"fmt"
	"time"
)

// ThrottleConfig tunes a Throttle. The zero value of a field means its default.
type ThrottleConfig struct {
	// Off leaves the throttle out.
	Off bool
	// K is how many calls are sent for each that is accepted before this side refuses some itself: 2 sends a
	// service that is overloaded twice what it takes, and so finds out early when it takes more. Default: 2; at
	// least 1.05.
	K float64
	// Window is how far back calls count. Default: 10 s.
	Window time.Duration
	// MinVolume is how many calls must have been asked for within Window before any is refused, and how many that
	// were sent are looked at; an eighth of it while some are refused. A busy caller has as many within a fraction of
	// a second, and so reacts, and recovers, as fast; one of few calls is never throttled. Default: 40.
	MinVolume int
	// MinFlow is the share of calls that is sent whatever happened, so that recovery is seen; at least two a step.
	// Default: 0.01; at least that.
	MinFlow float64
}

// K towards a service that reports its utilisation: by how much more than it takes now it could take is known, so that
// less need be tried when it is full, and all can be sent soon when it is not.
const (
	fullK  = 1.3
	idlest = 0.1 // a lower utilisation is not believed
)

func (c ThrottleConfig) defaults() ThrottleConfig {
	if c.K == 0 {
		c.K = 2
	}
	if c.Window <= 0 {
		c.Window = 10 * time.Second
	}
	if c.MinVolume <= 0 {
		c.MinVolume = 40
	}
	c.K = max(c.K, 1.05)
	c.MinFlow = min(max(c.MinFlow, 0.01), 1)
	return c
}

// Throttle is the core of client-side throttling (B. Beyer et al., "Site Reliability Engineering", 2016, chapter 21):
// of the calls that a program asks for, the share
//
//	p = max(0, (requests - K * accepts) / (requests + 1))
//
// is refused before it is sent. Requests are all that were asked for, accepts those that the service worked on: a
// rejection or no answer in time is none, an error is one. It is for one goroutine and has no clock.
//
//	         requests > K * accepts                 p back at 0
//	open -------------------------------> shedding -------------> open
//	                                        |  ^
//	                                        +--+ each step: p anew, never above 1 - MinFlow
//
// Four things differ from the formula as others run it. How far back is looked follows the volume: only as far as
// MinVolume calls that were sent, so that p follows a busy service within a step or two and an hour of trouble
// is not held against it. Refusals count as requests, yet when every call that is sent is accepted K is squared, and the
// share that is sent grows by that factor each step: they cannot keep the throttle shut. What is refused is taken from the lowest priority
// first. And where the service reports its utilisation, K is 1.3 by that: 1.3 when it is full, 2.6 when it is half full.
type Throttle struct {
	config  ThrottleConfig
	windows []Calls // the newest last
	span    time.Duration
	drop    float64 // the last decision

	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing
}

// ThrottleState is what a Throttle decided, with the numbers that did.
type ThrottleState struct {
	// Drop is the share of all calls that is refused; 0: none.
	Drop float64 `json:"drop"`
	// Shed is that share by priority.
	Shed [priorities]float64 `json:"-"`
	// Requests and Accepts are what was counted, over Span.
	Requests int64         `json:"requests"`
	Accepts  int64         `json:"accepts"`
	Span     time.Duration `json:"span"`
	// K is the one in force.
	K float64 `json:"k"`
}

// Reason says why calls are refused, in words; empty if none is.
func (s ThrottleState) Reason() string {
	if s.Drop == 0 {
		return ""
	}
	return fmt.Sprintf("throttled: %.0f %% of the calls are not sent, for of %d in %v the service took %d (K %.2g)",
		100*s.Drop, s.Requests, s.Span.Round(time.Millisecond), s.Accepts, s.K)
}

// NewThrottle returns a throttle that is open.
func NewThrottle(config ThrottleConfig) *Throttle { return &Throttle{config: config.defaults()} }

// Step takes one more window of calls, and returns what to refuse until the next.
func (t *Throttle) Step(c Calls) ThrottleState {
	if t.config.Off {
		return ThrottleState{}
	}
	t.windows = append(t.windows, c)
	t.span += c.Span
	for len(t.windows) > 1 && t.span-t.windows[0].Span >= t.config.Window {
		t.span -= t.windows[0].Span
		t.windows = t.windows[1:]
	}
	seen := t.lookBack()
	s := ThrottleState{Requests: seen.sent() + seen.Refused, Accepts: seen.accepted(), Span: seen.Span, K: t.k(seen)}
	if t.plantedBug == "refusals are failures" {
		s.Accepts -= seen.Refused
	}
	if requests := t.requests(); requests >= int64(t.config.MinVolume) {
		s.Drop = max(0, (float64(s.Requests)-s.K*float64(s.Accepts))/float64(s.Requests+1))
		flow := max(t.config.MinFlow, 2*float64(len(t.windows))/float64(requests+1)) // of two a step
		if t.plantedBug == "no probe flow" {
			flow = 0
		}
		s.Drop = min(s.Drop, max(0, 1-flow))
	}
	t.drop = s.Drop
	s.Shed = spread(s.Drop, 1-t.config.MinFlow, seen.Asked)
	return s
}

// lookBack joins the newest windows that hold MinVolume calls that were sent, or all there are.
func (t *Throttle) lookBack() Calls {
	var seen Calls
	enough := int64(t.config.MinVolume)
	if t.drop > 0 {
		enough = max(enough/8, 1)
	}
	for i := len(t.windows) - 1; i >= 0; i-- {
		seen = t.windows[i].add(seen)
		if seen.sent() >= enough {
			break
		}
	}
	return seen
}

func (t *Throttle) requests() int64 {
	var n int64
	for _, w := range t.windows {
		n += w.sent() + w.Refused
	}
	return n
}

// k is fullK by the reported utilisation, or K if there is no report; squared when all that was sent was accepted.
func (t *Throttle) k(seen Calls) float64 {
	k := t.config.K
	if seen.Load > 0 {
		k = fullK / min(max(seen.Load, idlest), 1)
	}
	if t.drop > 0 && seen.Rejected+seen.TimedOut == 0 {
		k *= k
	}
	return k
}

// spread divides a share of all calls that is to be refused among the priorities: the lowest pay first, each at
// most the share most.
func spread(drop, most float64, asked [priorities]int64) (shed [priorities]float64) {
	var total int64
	for _, n := range asked {
		total += n
	}
	if total == 0 { // nothing was counted yet
		asked[Normal], total = 1, 1
	}
	for _, p := range order {
		if drop < 1e-9 { // the rest of a subtraction is no reason to touch a higher priority
			break
		}
		shed[p] = most // of a priority that was not seen, too: if a call comes, it goes before those above it
		if mix := float64(asked[p]) / float64(total); mix > 0 {
			shed[p] = min(drop/mix, most)
			drop -= shed[p] * mix
		}
	}
	return shed
}
