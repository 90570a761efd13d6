package limit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// GateConfig tunes a Gate.
type GateConfig struct {
	// Throttle refuses calls that the callee would reject. Default: on.
	Throttle ThrottleConfig
	// Limit bounds the calls in flight. Default: off, until Limit.Healthy is given.
	Limit Config
	// Budget bounds the calls that are made again. Default: on.
	Budget BudgetConfig
}

// Check returns all faults of the config.
func (c GateConfig) Check() error {
	var errs []error
	if c.Throttle.K < 0 || c.Throttle.MinFlow < 0 || c.Throttle.MinFlow > 1 || c.Throttle.MinVolume < 0 || c.Throttle.Window < 0 {
		errs = append(errs, fmt.Errorf("Throttle has K %v, MinFlow %v, MinVolume %d, Window %v: K is at least 1.05, MinFlow a share, none is negative",
			c.Throttle.K, c.Throttle.MinFlow, c.Throttle.MinVolume, c.Throttle.Window))
	}
	if c.Budget.Share < 0 || c.Budget.Floor < 0 || c.Budget.Bank < 0 {
		errs = append(errs, fmt.Errorf("Budget has Share %v, Floor %v, Bank %v: none may be negative", c.Budget.Share, c.Budget.Floor, c.Budget.Bank))
	}
	if c.Limit != (Config{}) {
		if err := c.Limit.Check(); err != nil {
			errs = append(errs, fmt.Errorf("Limit: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Gate is what stands before the calls of one service on the caller's side: a Throttle, an Adaptive limit and a
// Budget. What they decide is computed once per step and lies in atomics; a call that meets no overload costs
// one comparison, and an addition when a limit is on. Its methods are safe for concurrent use.
type Gate struct {
	// Read by each call. While nothing is shed tight is what the lowest priority may fill of the limit, and 0 without one;
	// -1 makes each call look closer.
	tight    atomic.Int64
	limited  bool
	inflight atomic.Int64

	_ [64]byte // what is above stays in the caches of all cores while no limit is on

	budget  *Budget
	limits  [priorities]atomic.Int64  // of calls in flight
	shed    [priorities]atomic.Uint32 // of 2^32
	asked   [priorities]atomic.Int64  // while shedding
	refused [reasons]atomic.Int64

	mu       sync.Mutex
	throttle *Throttle      // guarded by mu
	adaptive *Adaptive      // guarded by mu; nil: no limit
	before   [reasons]int64 // guarded by mu; refused at the last step
	state    GateState      // guarded by mu
}

// GateState is what a gate decided last, with the numbers that did.
type GateState struct {
	Throttle ThrottleState `json:"throttle"`
	// Limit is of calls in flight; its Limit is 0 when there is none.
	Limit State `json:"limit"`
	// InFlight is counted only when there is a limit.
	InFlight int64 `json:"in_flight"`
	// Budget is how many calls may be made again now.
	Budget float64 `json:"budget"`
	// Refused counts what was refused since the gate was made, by Reason.
	Refused [Reasons]int64 `json:"-"`
}

// NewGate returns an open gate.
func NewGate(config GateConfig) (*Gate, error) {
	if err := config.Check(); err != nil {
		return nil, fmt.Errorf("limit: config: %w", err)
	}
	g := &Gate{throttle: NewThrottle(config.Throttle), budget: NewBudget(config.Budget)}
	if config.Limit != (Config{}) {
		g.limited = true
		g.adaptive, _ = NewAdaptive(config.Limit) // checked above
	}
	g.publish()
	return g, nil
}

// Enter admits a call with the priority of ctx, or says why not. A call that was admitted must Leave.
func (g *Gate) Enter(ctx context.Context) Reason {
	if !g.limited && g.tight.Load() == 0 {
		return Admitted // this much is laid into the caller
	}
	return g.enter(ctx)
}

func (g *Gate) enter(ctx context.Context) Reason {
	var n int64
	if g.limited {
		n = g.inflight.Add(1)
	}
	if n <= g.tight.Load() {
		return Admitted
	}
	return g.closer(PriorityOf(ctx), n, rand.Uint32())
}

// EnterAs is Enter for a priority and a random number: with the same numbers it decides the same.
func (g *Gate) EnterAs(p Priority, random uint32) Reason {
	var n int64
	if g.limited {
		n = g.inflight.Add(1)
	}
	if n <= g.tight.Load() {
		return Admitted
	}
	return g.closer(p, n, random)
}

// Leave ends a call that was admitted.
func (g *Gate) Leave() {
	if g.limited {
		g.inflight.Add(-1)
	}
}

// closer decides on the n-th call in flight while something sheds or is nearly full.
func (g *Gate) closer(p Priority, n int64, random uint32) Reason {
	p = min(p, Sheddable)
	g.asked[p].Add(1)
	reason := Admitted
	switch {
	case random < g.shed[p].Load():
		reason = Throttled
	case g.limited && n > g.limits[p].Load():
		reason = AtLimit
	}
	if reason != Admitted {
		g.Leave()
		g.refused[reason].Add(1)
	}
	return reason
}

// Refuse counts a call that was refused for a reason that the gate does not judge.
func (g *Gate) Refuse(r Reason) { g.refused[min(r, reasons-1)].Add(1) }

// Again asks whether a call may be made again, as a retry or a hedge. While calls of its priority are shed none may.
func (g *Gate) Again(p Priority) bool {
	if g.shed[min(p, Sheddable)].Load() == 0 && g.budget.Spend() {
		return true
	}
	g.refused[BudgetSpent].Add(1)
	return false
}

// Step takes what became of the calls of the last window; the gate adds what it refused itself.
func (g *Gate) Step(c Calls) GateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	var now [reasons]int64
	for i := range g.refused {
		now[i] = g.refused[i].Load()
	}
	for p := range g.asked {
		c.Asked[p] = g.asked[p].Swap(0)
	}
	c.Refused = now[Throttled] - g.before[Throttled]
	g.state.Throttle = g.throttle.Step(c)
	if g.adaptive != nil {
		c.Refused = now[AtLimit] - g.before[AtLimit]
		g.state.Limit = g.adaptive.Step(c)
	}
	g.budget.Step(c)
	g.before = now
	g.publish()
	return g.stateNow()
}

// Open lets everything through until the next Step. A gate that nobody steps any more must not stay as it happens to be.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.shed {
		g.shed[p].Store(0)
		g.limits[p].Store(math.MaxInt64)
	}
	g.tight.Store(math.MaxInt64)
}

// State returns the last decision, with the counts of now.
func (g *Gate) State() GateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stateNow()
}

// stateNow is called with mu held.
func (g *Gate) stateNow() GateState {
	s := g.state
	s.InFlight, s.Budget = g.inflight.Load(), g.budget.Left()
	for i := range s.Refused {
		s.Refused[i] = g.refused[i].Load()
	}
	return s
}

// publish lays the decision where calls read it. Callers hold mu, or own the gate.
func (g *Gate) publish() {
	tight := int64(0) // without a limit no call counts: 0 admits
	if g.adaptive != nil {
		g.state.Limit = g.adaptive.State()
		for p := range g.limits {
			g.limits[p].Store(Priority(p).of(g.state.Limit.Limit))
		}
		tight = g.limits[Sheddable].Load()
	}
	for p, share := range g.state.Throttle.Shed {
		g.shed[p].Store(uint32(share * math.MaxUint32))
	}
	if g.state.Throttle.Drop > 0 {
		tight = -1
	}
	g.tight.Store(tight)
}
