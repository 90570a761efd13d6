package flow

import (
	"fmt"
	"time"
)

// admission decides which attempts run. It has no clock and no lock, and does no I/O: gate is the shell around it.
//
// An attempt needs a unit of each gauge that bounds it: its device's, its module's, its tool's, the process's. It gets them all at once.
//
//	           every unit free
//	ask ---------------------------> granted ---> release
//	  \                               ^
//	   `-> waits at a gauge without a | and the others have one, too
//	       unit, until it is served --'
//	        ^                       \
//	        `------ at another ------'
//
// Whoever waits holds nothing, so that a device is not kept from one change by another that waits for a tool. One that was sent from gauge to
// gauge often goes on otherwise: it takes its units one after another, in the order above, and keeps what it has. All take in that
// order, so nobody waits in a circle; each gauge serves those who wait in the order of queue, so nobody waits for ever.
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
	at       int8 // the gauge at which it waits, if it does
	waits    bool
	moves    int8 // from gauge to gauge

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

// patience is how often a ticket may be sent from gauge to gauge before it keeps what it gets.
const patience = 16

// ask takes what the ticket needs, or lets it wait; it reports whether it may run.
func (a *admission) ask(now time.Time, t *ticket) bool {
	t.since = now
	return a.place(now, t, -1)
}

// place takes all that the ticket needs, or has it wait. turn is the gauge whose turn to serve the ticket has come; -1 is none.
func (a *admission) place(now time.Time, t *ticket, turn int8) bool {
	if t.moves >= patience {
		return a.climb(now, t)
	}
	for i, g := range t.gauges[:t.n] {
		if !g.free(now) || g.queue.live > 0 && int8(i) != turn {
			t.moves++
			t.wait(int8(i))
			return false
		}
	}
	for ; t.held < t.n; t.held++ {
		t.gauges[t.held].take(now)
	}
	return true
}

// climb takes units from where the ticket stands, and keeps them.
func (a *admission) climb(now time.Time, t *ticket) bool {
	for t.held < t.n {
		g := t.gauges[t.held]
		if g.queue.live > 0 || !g.free(now) {
			t.wait(t.held)
			return false
		}
		g.take(now)
		t.held++
	}
	return true
}

func (t *ticket) wait(at int8) {
	t.at, t.waits = at, true
	t.gauges[at].queue.push(t)
}

// seize takes what the ticket needs whether it is free or not: it runs already.
func (a *admission) seize(t *ticket) {
	for ; t.held < t.n; t.held++ {
		t.gauges[t.held].running++
	}
}

// release gives back what the ticket has, and withdraws it if it waits. Who may run now is in granted.
func (a *admission) release(now time.Time, t *ticket) {
	t.gone = true
	if t.waits {
		t.waits = false
		t.gauges[t.at].queue.withdraw()
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
		t.waits = false
		granted := false
		if t.moves >= patience && t.gauges[t.held] == g {
			g.take(now)
			t.held++
			granted = a.climb(now, t)
		} else {
			granted = a.place(now, t, t.at)
		}
		if granted {
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
	if !t.waits {
		return ""
	}
	g := t.gauges[t.at]
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
