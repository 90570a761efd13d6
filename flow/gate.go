package flow

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gate stands where attempts start. It is the shell around admission and locks: it has the clock, the mutex, and the runs that wait.
//
//	ask -> frozen? -> exclusive key? -> units? -> granted
//	          |             |             |
//	          `-------------`-------------`--> waits; once granted, the run gets inAdmitted
type gate struct {
	attempts *sync.WaitGroup // the engine's: what the gate starts is waited for with them
	free     ticket          // stands for the leave of every attempt that needs a unit of the process and nothing else

	mu        sync.Mutex // guards what follows
	admission *admission
	locks     *locks
	freezes   []Freeze
	parked    []*ticket // wait for the end of a freeze
	timer     *time.Timer
	at        time.Time     // when the timer fires
	closed    bool          // nobody is woken any more
	waiting   chan struct{} // somebody waits for a lock
	shut      chan struct{} // closed with closed
}

// request is what an attempt wants.
type request struct {
	step, tool, device string
	item               int
	local              bool   // it runs in this process
	nested             bool   // it runs another flow, which needs the same units
	exclusive          string // the key of its task; "" is none, or held already
	urgent             bool   // an undo or a probe
	done               chan struct{}
}

// gatekeeper is what the machine asks before it starts an attempt, and before an execution's first step.
type gatekeeper interface {
	// admit says what the attempt waits for, and then inAdmitted comes with the leave; or nothing, and the ticket is the leave.
	admit(q request) (*ticket, string)
	// lock takes the keys for the execution, or says what it waits for, until inLocked comes; or refuses.
	lock(keys []string) (waits string, refused bool)
	// held returns the keys that the execution holds, and its sub-flows.
	held() []string
}

func newGate(config *Config, attempts *sync.WaitGroup) *gate {
	return &gate{attempts: attempts, admission: newAdmission(config.Concurrency, config.Limits), locks: newLocks(), waiting: make(chan struct{}, 1), shut: make(chan struct{})}
}

// plain reports whether only the process bounds an attempt.
func (g *gate) plain(q *request) bool {
	l := &g.admission.limits
	return len(g.freezes) == 0 && q.exclusive == "" && l.PerDevice == 0 && l.PerModule == 0 && len(l.Tools) == 0
}

// ask says what the attempt waits for; nothing if it may run. The ticket is its leave: nil if it needs none.
func (g *gate) ask(r *run, q request) (*ticket, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.plain(&q) {
		process := &g.admission.process
		switch {
		case !q.local:
			return nil, ""
		case process.queue.live == 0 && process.running < process.limit:
			process.running++
			return &g.free, ""
		}
	}
	t := &ticket{owner: r, request: q}
	at := now()
	waits := g.proceed(at, t)
	g.settle(at)
	if t.finished {
		return t, ""
	}
	if r.tickets == nil {
		r.tickets = map[*ticket]struct{}{}
	}
	r.tickets[t] = struct{}{}
	return t, waits
}

// proceed takes a ticket as far as it goes, and says what it waits for then. It is finished if nothing is in its way.
func (g *gate) proceed(at time.Time, t *ticket) string {
	t.parked = false
	if f := g.freeze(at, t); f != nil {
		if t.held > 0 {
			g.admission.release(at, t)
		}
		t.gone, t.n, t.parked = false, 0, true
		g.parked = append(g.parked, t)
		return f.said()
	}
	q := &t.request
	if q.exclusive != "" && t.key == nil {
		t.key = &keyTicket{holder: t.owner.task(q), keys: []string{exclusivePrefix + q.exclusive}, ticket: t}
		if blocked, _ := g.locks.ask(at, t.key); blocked != nil {
			g.follow()
			return blocked.said()
		}
	}
	if t.n == 0 {
		t.lane, t.priority = t.owner.id, t.owner.priority
		if q.urgent {
			t.priority = urgent
		}
		if !q.nested {
			g.admission.bind(t, q.tool, q.device, t.owner.module, q.local)
		}
		if !g.admission.ask(at, t) {
			return t.why(at)
		}
	}
	t.finished = true
	return ""
}

// freeze returns what holds an attempt.
func (g *gate) freeze(at time.Time, t *ticket) *Freeze {
	if t.request.urgent || t.owner.exempt != "" {
		return nil
	}
	for i := range g.freezes {
		f := &g.freezes[i]
		if (f.Module == "" || f.Module == t.owner.module) && (f.Until.IsZero() || at.Before(f.Until)) {
			return f
		}
	}
	return nil
}

// settle hands on what admission and locks have granted, and sets the timer. The caller holds the mutex.
func (g *gate) settle(at time.Time) {
	for len(g.admission.granted)+len(g.locks.granted) > 0 {
		keys, tickets := g.locks.granted, g.admission.granted
		g.locks.granted, g.admission.granted = nil, nil
		for _, k := range keys {
			if k.ticket == nil {
				delete(k.owner.asked, k)
				g.wake(k.owner, message{in: input{kind: inLocked}})
			} else {
				tickets = append(tickets, k.ticket)
			}
		}
		for _, t := range tickets {
			if g.proceed(at, t); t.finished {
				g.grant(t)
			}
		}
	}
	g.arm(at)
}

// grant tells who waits.
func (g *gate) grant(t *ticket) {
	delete(t.owner.tickets, t)
	if t.request.done != nil {
		close(t.request.done)
		return
	}
	g.wake(t.owner, message{in: input{kind: inAdmitted, step: t.request.step, item: t.request.item, grant: t}})
}

// wake brings a run a message. A goroutine of its own does, for whom the engine waits: the run may have to wait for the disk.
func (g *gate) wake(r *run, msg message) {
	if g.closed {
		return
	}
	g.attempts.Go(func() { r.post(msg) })
}

// arm sets the timer for the next moment at which somebody may go on: a rate's, or the end of a freeze.
func (g *gate) arm(at time.Time) {
	next := g.admission.next()
	if len(g.parked) > 0 {
		for i := range g.freezes {
			if until := g.freezes[i].Until; until.After(at) && (next.IsZero() || until.Before(next)) {
				next = until
			}
		}
	}
	if next.IsZero() || g.closed || g.timer != nil && g.at.Equal(next) {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	g.at = next
	g.timer = time.AfterFunc(next.Sub(at), g.tick)
}

func (g *gate) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	at := now()
	g.timer = nil
	g.admission.tick(at)
	g.thaw(at)
	g.settle(at)
}

// thaw has everything that a freeze held ask again.
func (g *gate) thaw(at time.Time) {
	parked := g.parked
	g.parked = nil
	for _, t := range parked {
		if g.proceed(at, t); t.finished {
			g.grant(t)
		}
	}
}

// release gives back the units of an attempt that has ended; nil is none.
func (g *gate) release(t *ticket) {
	if t == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	if t == &g.free {
		process := &g.admission.process
		if process.running--; process.queue.live == 0 {
			return
		}
		g.admission.serve(at, process)
	} else {
		g.admission.release(at, t)
	}
	g.settle(at)
}

// unused gives back what was granted and is not wanted, key and all.
func (g *gate) unused(t *ticket) {
	if t == nil {
		return
	}
	g.release(t)
	if t.key != nil {
		g.unlock(t.key.holder, t.key.keys...)
	}
}

// unlock frees keys of a holder; none: all of them.
func (g *gate) unlock(holder string, keys ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	if len(keys) == 0 {
		g.locks.releaseAll(at, holder)
	} else {
		g.locks.release(at, holder, keys...)
	}
	g.settle(at)
}

// wait blocks until an attempt may run: an undo or a probe, whose start is stored already. It is ErrClosed if the engine stops.
func (g *gate) wait(ctx context.Context, r *run, q request) (*ticket, error) {
	q.done = make(chan struct{})
	t, waits := g.ask(r, q)
	if waits == "" {
		return t, nil
	}
	err := ErrClosed
	select {
	case <-q.done:
		return t, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-g.shut:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	g.withdraw(at, t)
	g.settle(at)
	return nil, err
}

// withdraw ends a ticket, whether it waits or not. The caller holds the mutex.
func (g *gate) withdraw(at time.Time, t *ticket) {
	delete(t.owner.tickets, t)
	if t.parked {
		g.parked = slices.DeleteFunc(g.parked, func(other *ticket) bool { return other == t })
	}
	if t.n > 0 && !t.gone {
		g.admission.release(at, t)
	}
	if t.key != nil {
		g.locks.withdraw(at, t.key)
		g.locks.release(at, t.key.holder, t.key.keys...)
	}
}

// forget ends everything that a run that is no longer live waits for.
func (g *gate) forget(r *run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(r.tickets)+len(r.asked) == 0 {
		return
	}
	at := now()
	for t := range r.tickets {
		g.withdraw(at, t)
	}
	for k := range r.asked {
		g.locks.withdraw(at, k)
	}
	clear(r.asked)
	g.settle(at)
}

// close keeps the gate from waking anybody.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		close(g.shut)
	}
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

func (g *gate) setFreezes(freezes []Freeze) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.freezes = slices.Clone(freezes)
	slices.SortStableFunc(g.freezes, func(a, b Freeze) int { return strings.Compare(a.Module, b.Module) })
	at := now()
	g.thaw(at)
	g.settle(at)
}

func (g *gate) frozen() []Freeze {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	return slices.DeleteFunc(slices.Clone(g.freezes), func(f Freeze) bool { return !f.Until.IsZero() && !at.Before(f.Until) })
}

// The run is what the machine asks.

func (r *run) admit(q request) (*ticket, string) { return r.engine.gate.ask(r, q) }

func (r *run) lock(keys []string) (string, bool) {
	g := r.engine.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(r.asked) > 0 {
		return "waits for its locks", false
	}
	k := &keyTicket{holder: r.root, keys: keys, owner: r}
	blocked, refused := g.locks.ask(now(), k)
	switch {
	case blocked == nil:
		return "", false
	case refused:
		return blocked.said(), true
	}
	r.asked = map[*keyTicket]struct{}{k: {}}
	g.follow()
	return blocked.said(), false
}

func (r *run) held() []string {
	g := r.engine.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.locks.holders[r.id]; h != nil {
		return slices.Clone(h.keys)
	}
	return nil
}

// task names the holder of an exclusive key.
func (r *run) task(q *request) string { return taskName(r.id, q.step, q.item) }

func taskName(id, step string, item int) string { return id + "/" + step + "/" + itoa(item) }

// seize takes units for an attempt that runs already.
func (g *gate) seize(r *run, q request) *ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &ticket{owner: r, request: q, finished: true}
	if !q.nested {
		g.admission.bind(t, q.tool, q.device, r.module, q.local)
	}
	g.admission.seize(t)
	return t
}

// waits counts the attempts, and the executions, that wait: by what for.
func (g *gate) waits() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]int{"process": g.admission.process.queue.live, "tool": 0, "device": 0, "module": 0, "lock": 0, "freeze": len(g.parked)}
	for what, in := range map[string]map[string]*gauge{"tool": g.admission.tools, "device": g.admission.devices, "module": g.admission.modules} {
		for _, one := range in {
			out[what] += one.queue.live
		}
	}
	for _, k := range g.locks.keys {
		out["lock"] += len(k.line)
	}
	return out
}

var waitsDesc = prometheus.NewDesc("zhiyun_flow_waiting", "Attempts that wait before they start, by what for: process, tool, device, module, lock or freeze; executions that wait for their flow's locks count with lock.", []string{"for"}, nil)

// Describe implements prometheus.Collector.
func (g *gate) Describe(out chan<- *prometheus.Desc) { out <- waitsDesc }

// Collect implements prometheus.Collector.
func (g *gate) Collect(out chan<- prometheus.Metric) {
	for what, n := range g.waits() {
		out <- prometheus.MustNewConstMetric(waitsDesc, prometheus.GaugeValue, float64(n), what)
	}
}

// introduce notes what the gate has to know of a run. It stays so: others read it while the run is live.
func (g *gate) introduce(r *run, p *program, x *Execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.root != "" {
		return
	}
	r.root, r.exempt, r.as = x.holder(), x.exempt, x.as
	r.module, r.priority = x.module(), DefaultPriority
	if p.Priority != nil {
		r.priority = int8(*p.Priority)
	}
}
