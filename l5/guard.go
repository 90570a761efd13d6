package l5

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// guard stands before the calls of one service: a limit.Gate, a limit for each instance, and what is known about
// deadlines. What it decides is computed each tick; a call loads and compares.
type guard struct {
	gate    *limit.Gate
	soonest atomic.Int64 // unix ns: no call with an earlier deadline can be answered in time
	least   atomic.Int64 // ns that nearly every call takes; 0: not known
	hedge   atomic.Int64 // ns after which a call is among the slowest; 0: not known
	why     [limit.Reasons]atomic.Pointer[RouteError]

	latencies *limit.Latencies      // guarded by the service's mu
	histogram [latencyBuckets]int64 // guarded by the service's mu; since the last step
	stepped   time.Time             // guarded by the service's mu
}

// endpointGuard is what a guard keeps for one instance.
type endpointGuard struct {
	timedOut atomic.Uint32 // of the failures
	full     atomic.Uint32 // calls that found it full
	load     atomic.Uint64 // float32 bits: utilisation as it reported last, and the capacity in the low half

	capacity         float64         // guarded by the service's mu; calls per second, as it says
	lastHeard        time.Time       // guarded by the service's mu
	factor           float64         // guarded by the service's mu; of the weight, as told to the balancer
	told             time.Time       // guarded by the service's mu
	stepped          time.Time       // guarded by the service's mu
	counted          counted         // guarded by the service's mu; since the last step
	oldTimed, oldFul uint32          // guarded by the service's mu; at the last step
	adaptive         *limit.Adaptive // guarded by the service's mu; nil: no limit
}

// hedgeQuantile is the share of calls that are faster than those that are hedged.
const hedgeQuantile = 0.95

func newGuard(config *Config) *guard {
	gate, err := limit.NewGate(config.Guard)
	if err != nil { // Config was checked: without a guard calls go on
		gate, _ = limit.NewGate(limit.GateConfig{Throttle: limit.ThrottleConfig{Off: true}})
	}
	return &guard{gate: gate, latencies: limit.NewLatencies(latencyBuckets, LatencyBound)}
}

// instanceLimit is the config of one instance's limit; nil is off. One call is always let through.
func (c *Config) instanceLimit() *limit.Config {
	if c.Guard.Limit.Healthy <= 0 {
		return nil
	}
	config := c.Guard.Limit
	config.Min, config.Start = 1, 0
	return &config
}

// bounded reports whether calls in flight per instance are.
func (c *Config) bounded() bool { return c.MaxInFlight > 0 || c.Guard.Limit.Healthy > 0 }

// bound sets the first bound on the calls in flight.
func (e *endpoint) bound(config *Config) {
	limits := math.MaxInt32
	if c := config.instanceLimit(); c != nil {
		e.state.guard.adaptive, _ = limit.NewAdaptive(*c) // Config was checked
		limits = e.state.guard.adaptive.State().Limit
	}
	e.ceiling.Store(config.ceiling(limits))
}

// ceiling is how many calls may be in flight at an instance whose adaptive limit is so much.
func (c *Config) ceiling(limit int) uint32 {
	if c.MaxInFlight > 0 {
		limit = min(limit, c.MaxInFlight)
	}
	return uint32(min(limit, math.MaxInt32))
}

// admit lets a call through to the pick, or says why not. A call that was let through must leave the gate. The clock is looked
// at only for a call that seems to come too late: it may have stepped since the deadline was set, and then it does not.
func (s *service) admit(ctx context.Context) error {
	g := s.guard
	if deadline, ok := ctx.Deadline(); ok && deadline.UnixNano() < g.soonest.Load() && s.hopeless(ctx) {
		return s.turnAway(limit.TooLate)
	}
	if reason := g.gate.Enter(ctx); reason != limit.Admitted {
		return s.refuse(refusalOf(reason), s.because(reason))
	}
	return nil
}

// admitFor is admit for a call that brings a priority of its own, unless it is normal.
func (s *service) admitFor(ctx context.Context, p limit.Priority) error {
	if p == limit.Normal {
		return s.admit(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.UnixNano() < s.guard.soonest.Load() && s.hopeless(ctx) {
		return s.turnAway(limit.TooLate)
	}
	if reason := s.guard.gate.EnterAs(p, rand.Uint32()); reason != limit.Admitted {
		return s.refuse(refusalOf(reason), s.because(reason))
	}
	return nil
}

// turnAway counts a call that the gate did not judge, and says why it is refused.
func (s *service) turnAway(reason limit.Reason) error {
	s.guard.gate.Refuse(reason)
	return s.refuse(refusalOf(reason), s.because(reason))
}

// because returns the error for a reason, with the numbers of the last step. It is made there: refusing must be cheap.
func (s *service) because(reason limit.Reason) error {
	if err := s.guard.why[reason].Load(); err != nil {
		return err
	}
	switch reason {
	case limit.TooLate:
		return s.err(context.DeadlineExceeded, "the deadline cannot be met")
	case limit.InstanceFull:
		return s.overloaded
	}
	return s.err(ErrOverloaded, reason.String())
}

// stepGuard takes what was counted since the last step to the cores. Callers hold mu.
func (s *service) stepGuard(now time.Time) {
	g := s.guard
	span := s.client.config.TickEvery
	if !g.stepped.IsZero() {
		span = now.Sub(g.stepped)
	}
	if span <= 0 {
		return
	}
	g.stepped = now
	sum := limit.Calls{Span: span}
	var loads, loaded float64
	for _, e := range s.endpoints {
		if e.state.guard.counted == (counted{}) {
			continue // its limit waits, too: large services have many that nobody calls just now
		}
		calls := e.state.guard.calls(now, span)
		calls.Load = e.state.guard.listen(now)
		if adaptive := e.state.guard.adaptive; adaptive != nil {
			e.ceiling.Store(s.client.config.ceiling(adaptive.Step(calls).Limit))
		}
		if n := float64(calls.Succeeded + calls.Failed + calls.Rejected); calls.Load > 0 && n > 0 {
			loads += calls.Load * n
			loaded += n
		}
		sum.Succeeded += calls.Succeeded
		sum.Latency += calls.Latency
		sum.Failed += calls.Failed
		sum.TimedOut += calls.TimedOut
		sum.Rejected += calls.Rejected
	}
	if loaded > 0 {
		sum.Load = loads / loaded
	}
	g.latencies.Step(span, g.histogram[:])
	g.histogram = [latencyBuckets]int64{}
	g.hedge.Store(int64(g.latencies.Quantile(hedgeQuantile)))
	least := g.latencies.Least()
	if sum.Succeeded == 0 {
		least = 0 // perhaps because all were refused: let some through and see
	}
	g.least.Store(int64(least))
	g.soonest.Store(now.Add(least).UnixNano())
	s.explainGuard(g.gate.Step(sum), least)
	s.capacities(now)
}

// openGuard lets all calls through when nothing is counted any more: what is refused would be so for good.
func (s *service) openGuard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard.gate.Open()
	s.guard.least.Store(0)
	for _, e := range s.endpoints {
		e.ceiling.Store(s.client.config.ceiling(math.MaxInt32))
	}
}

// calls returns what became of an instance's calls since the last step. Callers hold the service's mu.
func (e *endpointGuard) calls(now time.Time, span time.Duration) limit.Calls {
	if !e.stepped.IsZero() {
		span = now.Sub(e.stepped)
	}
	e.stepped = now
	d := take(&e.counted)
	timed, full := e.timedOut.Load(), e.full.Load()
	calls := limit.Calls{
		Span: span, Succeeded: d.successes, Latency: d.latencySum, Rejected: d.rejected,
		TimedOut: int64(timed - e.oldTimed), Refused: int64(full - e.oldFul),
	}
	calls.Failed = max(d.failures-calls.TimedOut, 0)
	e.oldTimed, e.oldFul = timed, full
	return calls
}

// explainGuard makes the errors of the refusals until the next step. Callers hold mu.
func (s *service) explainGuard(state limit.GateState, least time.Duration) {
	set := func(reason limit.Reason, matches error, words string) {
		if old := s.guard.why[reason].Load(); old == nil || old.Reason != words {
			s.guard.why[reason].Store(&RouteError{Caller: s.client.config.Caller, Service: s.name, Reason: words, Err: matches})
		}
	}
	if state.Throttle.Drop > 0 {
		set(limit.Throttled, ErrOverloaded, state.Throttle.Reason())
	}
	if state.Limit.Limit > 0 {
		set(limit.AtLimit, ErrOverloaded, "as many calls to the service are in flight as may be; "+state.Limit.Reason())
	}
	set(limit.TooLate, context.DeadlineExceeded, fmt.Sprintf("the deadline cannot be met: hardly a call takes less than %v", least))
}

// timedOut reports whether err says that no answer came in time.
func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// GuardExplanation is what keeps calls of a service from leaving, and why.
type GuardExplanation struct {
	limit.GateState
	// Reasons says in words what is refused now, and by which numbers; empty: nothing is.
	Reasons []string `json:"reasons,omitempty"`
	// HedgeAfter is when a call is among the slowest, Least what nearly every call takes; 0: not known.
	HedgeAfter time.Duration `json:"hedge_after,omitempty"`
	Least      time.Duration `json:"least,omitempty"`
	// NotRepeated is how many retries and hedges the budget did not pay for.
	NotRepeated int64 `json:"not_repeated,omitempty"`
}

func (g *guard) explain() GuardExplanation {
	out := GuardExplanation{GateState: g.gate.State(), HedgeAfter: time.Duration(g.hedge.Load()), Least: time.Duration(g.least.Load())}
	out.NotRepeated = out.Refused[limit.BudgetSpent]
	if reason := out.Throttle.Reason(); reason != "" {
		out.Reasons = append(out.Reasons, reason)
	}
	if out.Limit.Limit > 0 && out.Limit.Phase != limit.Fresh {
		out.Reasons = append(out.Reasons, out.Limit.Reason())
	}
	return out
}
