package flow

import (
	"fmt"
	"time"
)

// admission decides which attempts run. It has no clock and no lock, and does no I/O: gate is the shell around it.
//
// An attempt needs a unit of each gauge that bounds it, and takes them one after another, from the narrowest: its device's, its
// module's, its tool's, the process's. What it has it keeps while it waits for the next.
//
//	           every unit free
//	ask ---------------------------> granted ---> release
//	  \                               ^
//	   `-> waits at the first gauge   | the others, in order
//	       without a unit ------------'
//
// All take in that order, so nobody waits in a circle; each gauge serves those who wait in the order of queue, so nobody waits for ever.
type admission struct {
	process          gauge
	limits           Limits
	tools            map[string]*gauge // those with a limit
	devices, modules map[string]*gauge // those in use
	granted          []*ticket         // who waited, and no longer does
}

// ticket is the wish of one attempt to run, and then its leave to.
type ticket struct {
	lane     string // the execution: lanes take turns
	priority int8   // 0..9, and urgent
	gone     bool   // nobody wants it any more
	since    time.Time
	gauges   [4]*gauge
	n, held  int8 // gauges that it needs, and of how many it has a unit

	// Of the gate.
	owner            *run
	request          request
	key              *keyTicket
	parked, finished bool
}

// urgent is the priority of undos and probes.
const urgent = 10

// gauge counts the units of one thing.
type gauge struct {
	what    string // process, device, module or tool
	name    string
	limit   int // units; 0: no bound
	running int
	every   time.Duration // between two starts; 0: no bound
	burst   int
	due     time.Time // of the next start, if every start came at its time
	queue   queue
}

func newAdmission(concurrency int, limits Limits) *admission {
	a := &admission{
		limits: limits, process: gauge{what: "process", limit: concurrency},
		tools: map[string]*gauge{}, devices: map[string]*gauge{}, modules: map[string]*gauge{},
	}
	for name, limit := range limits.Tools {
		g := &gauge{what: "tool", name: name, limit: limit.Concurrency, burst: max(limit.Burst, 1)}
		if limit.Rate > 0 {
			g.every = time.Duration(float64(time.Second) / limit.Rate)
		}
		a.tools[name] = g
	}
	return a
}

// bind finds the gauges of a ticket.
func (a *admission) bind(t *ticket, tool, device, module string, local bool) {
	add := func(g *gauge) {
		t.gauges[t.n] = g
		t.n++
	}
	if a.limits.PerDevice > 0 && device != "" {
		add(named(a.devices, "device", device, a.limits.PerDevice))
	}
	if a.limits.PerModule > 0 && module != "" {
		add(named(a.modules, "module", module, a.limits.PerModule))
	}
	if g := a.tools[tool]; g != nil {
		add(g)
	}
	if local {
		add(&a.process)
	}
}

func named(in map[string]*gauge, what, name string, limit int) *gauge {
	g := in[name]
	if g == nil {
		g = &gauge{what: what, name: name, limit: limit}
		in[name] = g
	}
	return g
}

// ask takes what the ticket needs, or lets it wait; it reports whether it may run.
func (a *admission) ask(now time.Time, t *ticket) bool {
	t.since = now
	return a.climb(now, t)
}

// climb takes units from where the ticket stands.
func (a *admission) climb(now time.Time, t *ticket) bool {
	for t.held < t.n {
		g := t.gauges[t.held]
		if g.queue.live > 0 || !g.free(now) {
			g.queue.push(t)
			return false
		}
		g.take(now)
		t.held++
	}
	return true
}

// seize takes what the ticket needs whether it is free or not: it runs already.
func (a *admission) seize(t *ticket) {
	for ; t.held < t.n; t.held++ {
		t.gauges[t.held].running++
	}
}

// release gives back what the ticket has, and withdraws it if it waits. Who may run now is in granted.
func (a *admission) release(now time.Time, t *ticket) {
	waits := t.held < t.n && !t.gone
	t.gone = true
	if waits {
		t.gauges[t.held].queue.withdraw()
	}
	held := t.held
	t.held = 0
	for i := held - 1; i >= 0; i-- {
		t.gauges[i].running--
	}
	for i := held - 1; i >= 0; i-- {
		a.serve(now, t.gauges[i])
	}
	for _, g := range t.gauges[:t.n] {
		a.discard(g)
	}
}

// discard forgets the gauge of a device or module that nobody uses.
func (a *admission) discard(g *gauge) {
	if g.running > 0 || g.queue.live > 0 {
		return
	}
	switch g.what {
	case "device":
		delete(a.devices, g.name)
	case "module":
		delete(a.modules, g.name)
	}
}

// serve gives out the free units of a gauge.
func (a *admission) serve(now time.Time, g *gauge) {
	for g.queue.live > 0 && g.free(now) {
		t := g.queue.pop()
		g.take(now)
		t.held++
		if a.climb(now, t) {
			a.granted = append(a.granted, t)
		}
	}
}

// tick serves the tools whose rate lets the next attempt start.
func (a *admission) tick(now time.Time) {
	for _, g := range a.tools {
		if g.every > 0 {
			a.serve(now, g)
		}
	}
}

// next returns when a rate will let the next one start that waits for that; zero if none does.
func (a *admission) next() time.Time {
	var first time.Time
	for _, g := range a.tools {
		if g.every == 0 || g.queue.live == 0 || g.limit > 0 && g.running >= g.limit {
			continue
		}
		if at := g.opens(); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// opens is when the rate lets the next one start.
func (g *gauge) opens() time.Time { return g.due.Add(-time.Duration(g.burst-1) * g.every) }

func (g *gauge) free(now time.Time) bool {
	if g.limit > 0 && g.running >= g.limit {
		return false
	}
	if g.every == 0 {
		return true
	}
	if horizon := now.Add(time.Duration(g.burst) * g.every); g.due.After(horizon) {
		g.due = horizon // the clock was put back
	}
	return !g.opens().After(now)
}

func (g *gauge) take(now time.Time) {
	g.running++
	if g.every > 0 {
		if g.due.Before(now) {
			g.due = now
		}
		g.due = g.due.Add(g.every)
	}
}

// why says what a ticket waits for.
func (t *ticket) why(now time.Time) string {
	if t.held >= t.n {
		return ""
	}
	g := t.gauges[t.held]
	what := g.what
	if g.name != "" {
		what += " " + g.name
	}
	if g.limit > 0 && g.running >= g.limit {
		return fmt.Sprintf("waits for %s: %d of %d run, %d wait", what, g.running, g.limit, g.queue.live)
	}
	if g.every > 0 {
		return fmt.Sprintf("waits for %s: one may start every %s, the next in %s; %d wait", what, g.every, max(g.opens().Sub(now), 0), g.queue.live)
	}
	return fmt.Sprintf("waits for %s: %d wait", what, g.queue.live)
}
