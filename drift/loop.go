package drift

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// loop is one run of an agent: the shell around core. One goroutine runs it and observes the device; repairs have
// goroutines of their own, which it waits for.
type loop struct {
	*Agent
	core     *core
	declared chan declaration
	touched  *touched
	repaired chan repairedEvent
	outbox   *outbox
	repairs  sync.WaitGroup

	known    map[int]Hold // local holds that core knows
	todo     []job        // of a full look, what is left
	coverage []Coverage   // by collector, the latest
	subjects []string     // declared paths in order, and the exact directories
}

// job is one piece of a full look: small, so that what is noticed in between does not wait long.
type job struct {
	collector   int
	only        []string // nil: all
	first, last bool     // of the collector's jobs
	beat        bool     // the last of all: a report is due even if there is nothing new
}

const (
	jobSize  = 1000
	debounce = 20 * time.Millisecond // bundles what one writer does, and bounds looks per second
)

func newLoop(a *Agent) *loop {
	c := a.config
	l := &loop{
		Agent: a, declared: make(chan declaration), touched: newTouched(),
		repaired: make(chan repairedEvent, parallelRepairs), known: make(map[int]Hold),
		coverage: make([]Coverage, len(c.Collectors)),
		core: newCore(policy{
			mode: c.Mode, modes: c.Modes, repairer: c.Repairer != nil, confirm: c.Confirm, settle: c.Settle,
			flapWindow: c.FlapWindow, flapLimit: c.FlapLimit, perHour: c.RepairsPerHour,
		}),
	}
	if c.Reporter != nil {
		l.outbox = newOutbox(c.Reporter, c.Logger, a.metrics.reportFailures.Inc)
	}
	return l
}

func (l *loop) run(ctx context.Context) {
	defer l.repairs.Wait()
	rescan, poll := time.NewTicker(l.config.Rescan), time.NewTicker(l.config.Poll)
	defer rescan.Stop()
	defer poll.Stop()
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	var settled <-chan time.Time // when what was touched is to be looked at
	ready := make(chan struct{})
	close(ready)
	for {
		holdsChanged := l.takeHolds(ctx)
		l.finish()
		wake.Reset(l.untilWake())
		var work chan struct{}
		if len(l.todo) > 0 {
			work = ready
		}
		select {
		case <-ctx.Done():
			return
		case d := <-l.declared:
			l.declare(ctx, d)
		case <-l.touched.wake:
			if settled == nil {
				settled = time.After(debounce)
			}
		case <-settled:
			settled = nil
			l.lookAtTouched(ctx)
		case e := <-l.repaired:
			l.step(ctx, e)
		case <-holdsChanged:
		case <-rescan.C:
			if len(l.todo) == 0 {
				l.lookAtAll(nil)
			}
		case <-poll.C:
			if len(l.todo) == 0 {
				l.lookAtAll(func(k Kind) bool { return !k.isFile() })
			}
		case <-wake.C:
			l.step(ctx, tickEvent{})
		case <-work:
			next := l.todo[0]
			l.todo = l.todo[1:]
			l.look(ctx, next)
		}
	}
}

func (l *loop) untilWake() time.Duration {
	if l.core.wake.IsZero() {
		return time.Hour
	}
	return max(time.Until(l.core.wake), time.Millisecond)
}

// takeHolds tells the core of local holds that began or ended, and returns what is closed when that changes again.
func (l *loop) takeHolds(ctx context.Context) <-chan struct{} {
	l.mu.Lock()
	changed := l.changed
	var events []holdEvent
	for id, hold := range l.local {
		if _, known := l.known[id]; !known {
			l.known[id] = hold
			events = append(events, holdEvent{id, &hold})
		}
	}
	for id := range l.known {
		if _, still := l.local[id]; !still {
			delete(l.known, id)
			events = append(events, holdEvent{id, nil})
		}
	}
	l.mu.Unlock()
	for _, e := range events {
		l.step(ctx, e)
	}
	return changed
}

// finish publishes what has changed since the last time.
func (l *loop) finish() {
	if !l.core.dirty {
		return
	}
	l.core.dirty = false
	open := l.core.open()
	l.mu.Lock()
	l.findings = open
	generation := l.generation
	l.mu.Unlock()
	l.metrics.open(open)
	if l.outbox == nil {
		return
	}
	r := Report{Device: l.config.Device, Generation: generation, At: time.Now(), Findings: open}
	if len(open) > l.config.MaxFindings {
		r.Findings, r.More = open[:l.config.MaxFindings:l.config.MaxFindings], len(open)-l.config.MaxFindings
	}
	for _, c := range l.coverage {
		if c.Collector == "" {
			continue
		}
		if over := len(c.Gaps) - maxGaps; over > 0 {
			c.Gaps, c.More = c.Gaps[:maxGaps:maxGaps], c.More+over
		}
		r.Coverage = append(r.Coverage, c)
	}
	l.outbox.post(r)
}

func (l *loop) declare(ctx context.Context, d declaration) {
	l.mu.Lock()
	same := l.generation == d.generation && l.core.state != nil
	l.desired, l.generation = d.state, d.generation
	l.mu.Unlock()
	if same {
		return
	}
	l.subjects = l.subjects[:0]
	for name := range d.state.Files {
		l.subjects = append(l.subjects, name)
	}
	slices.Sort(l.subjects)
	for _, dir := range d.state.Exact.Dirs {
		l.subjects = append(l.subjects, dir+everythingBelow)
	}
	l.step(ctx, declaredEvent{d.state})
	l.todo = nil
	l.lookAtAll(nil)
}

// lookAtAll plans a full look with the collectors whose kinds are wanted; nil means all.
func (l *loop) lookAtAll(wanted func(Kind) bool) {
	if l.core.state == nil {
		return
	}
	for i, c := range l.config.Collectors {
		kinds := c.Kinds()
		if len(kinds) == 0 || wanted != nil && !wanted(kinds[0]) {
			continue
		}
		if !kinds[0].isFile() {
			l.todo = append(l.todo, job{collector: i, first: true, last: true})
			continue
		}
		first := true
		for chunk := range slices.Chunk(l.subjects, jobSize) {
			l.todo = append(l.todo, job{collector: i, only: slices.Clone(chunk), first: first})
			first = false
		}
		if first {
			l.todo = append(l.todo, job{collector: i, only: []string{}, first: true})
		}
		l.todo[len(l.todo)-1].last = true
	}
	if wanted == nil && len(l.todo) > 0 {
		l.todo[len(l.todo)-1].beat = true
	}
}

// lookAtTouched looks at what watchers have noticed.
func (l *loop) lookAtTouched(ctx context.Context) {
	if l.core.state == nil {
		return
	}
	for i, t := range l.touched.take() {
		if t.All {
			l.config.Logger.Info("drift: looking at everything", "because", t.Why)
			l.metrics.lost.Inc()
			l.todo = slices.DeleteFunc(l.todo, func(j job) bool { return j.collector == i })
			kind := l.config.Collectors[i].Kinds()[0]
			l.lookAtAll(func(k Kind) bool { return k == kind })
			continue
		}
		only := slices.Sorted(slices.Values(t.Subjects))
		if !l.config.Collectors[i].Kinds()[0].isFile() {
			l.look(ctx, job{collector: i, first: true, last: true})
			continue
		}
		if only = slices.Compact(only); len(only) <= jobSize {
			l.look(ctx, job{collector: i, only: only})
			continue
		}
		for chunk := range slices.Chunk(only, jobSize) {
			l.todo = append(l.todo, job{collector: i, only: slices.Clone(chunk)})
		}
	}
}

// sweeper is a Collector that wants to know when a full look begins and ends.
type sweeper interface {
	sweepBegins()
	sweepEnds()
}

// look observes, compares and steps.
func (l *loop) look(ctx context.Context, j job) {
	collector := l.config.Collectors[j.collector]
	sweeps, _ := collector.(sweeper)
	if j.first && sweeps != nil {
		sweeps.sweepBegins()
	}
	desired := *l.core.state
	started := time.Now()
	live, err := collector.Collect(ctx, desired, j.only)
	if ctx.Err() != nil {
		return
	}
	if j.last && sweeps != nil {
		sweeps.sweepEnds()
	}
	l.metrics.looks(collector.Kinds()[0], time.Since(started))
	if err != nil {
		name := l.coverage[j.collector].Collector
		if name == "" {
			name = string(collector.Kinds()[0])
		}
		if !l.coverage[j.collector].Blind {
			l.config.Logger.Warn("drift: nothing can be observed", "collector", name, "error", err)
		}
		l.cover(j.collector, Coverage{Collector: name, Kinds: collector.Kinds(), Blind: true, At: started,
			Gaps: []Gap{{What: "everything", Why: err.Error(), Since: started}}})
		l.core.dirty = l.core.dirty || j.beat
		return
	}
	// Coverage counts from the first whole look on: a reader takes it as leave to close what is not reported.
	if len(live.Coverage) > 0 && (j.last || l.coverage[j.collector].Collector != "" && !l.coverage[j.collector].Blind) {
		l.cover(j.collector, live.Coverage[0])
	}
	l.core.dirty = l.core.dirty || j.beat
	l.step(ctx, observedEvent{
		findings: Compare(part(desired, collector.Kinds(), j.only), live),
		names:    j.only, scope: scope(collector.Kinds(), j.only, live),
	})
}

// cover keeps a collector's latest statement, which is news if it says something else than the last.
func (l *loop) cover(collector int, now Coverage) {
	before := l.coverage[collector]
	if before.Collector != now.Collector || before.Via != now.Via || before.Blind != now.Blind || len(before.Gaps) != len(now.Gaps) {
		l.core.dirty = true
	}
	l.coverage[collector] = now
}

// part is what of a declaration the subjects in only are compared with; nil means all.
func part(desired State, kinds []Kind, only []string) State {
	out := State{Exact: desired.Exact, Ignore: desired.Ignore}
	if slices.Contains(kinds, KindProcess) {
		out.Processes = desired.Processes
	}
	if slices.Contains(kinds, KindPort) {
		out.Ports = desired.Ports
	}
	if !slices.ContainsFunc(kinds, Kind.isFile) {
		return out
	}
	if only == nil {
		out.Files = desired.Files
		return out
	}
	out.Files = make(map[string]File, len(only))
	for _, name := range only {
		if f, ok := desired.Files[name]; ok {
			out.Files[name] = f
		}
	}
	return out
}

// scope says for which findings an observation speaks.
func scope(kinds []Kind, only []string, live State) func(Key, Finding) bool {
	sight := sightOf(live)
	names := make(map[string]bool, len(only))
	var dirs Exact
	for _, name := range only {
		if n := len(name) - len(everythingBelow); n > 0 && name[n:] == everythingBelow {
			dirs.Dirs = append(dirs.Dirs, name[:n])
		} else {
			names[name] = true
		}
	}
	return func(key Key, f Finding) bool {
		if !slices.Contains(kinds, key.Kind) || !sight.sees(key.Kind) || sight.unknown[key.Subject] {
			return false
		}
		return only == nil || names[key.Subject] || f.has(FieldUnexpected) && dirs.covers(key.Subject)
	}
}

// step drives the core, and does what it says.
func (l *loop) step(ctx context.Context, event any) {
	for _, do := range l.core.step(time.Now(), event) {
		switch {
		case do.tell != nil:
			l.tell(*do.tell)
		case do.repair != nil:
			l.repair(ctx, *do.repair)
		case do.look != nil:
			l.lookAgain(ctx, *do.look)
		}
	}
}

func (l *loop) tell(e Event) {
	e.Finding.Device = l.config.Device
	level := slog.LevelInfo
	if e.Kind == EventFound || e.Kind == EventEscalated || e.Kind == EventFailed {
		level = slog.LevelWarn
	}
	f := e.Finding
	l.config.Logger.Log(context.Background(), level, "drift: "+string(e.Kind), "kind", f.Kind, "subject", f.Subject, "fields", f.Fields,
		"expected", f.Expected, "actual", f.Actual, "status", f.Status, "verdict", f.Verdict, "reason", f.Reason.String())
	l.metrics.event(e)
	if e.Kind == EventClosed && l.outbox != nil {
		l.outbox.close(f)
	}
	if l.config.OnEvent != nil {
		l.config.OnEvent(e)
	}
}

func (l *loop) repair(ctx context.Context, f Finding) {
	f.Device = l.config.Device
	l.repairs.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, l.config.RepairTimeout)
		defer cancel()
		err := l.config.Repairer.Repair(ctx, f)
		l.metrics.repair(f.Kind, err)
		l.repaired <- repairedEvent{f.Key(), err} // it has room for all that run at once
	})
}

// lookAgain observes one subject.
func (l *loop) lookAgain(ctx context.Context, key Key) {
	for i, c := range l.config.Collectors {
		if !slices.Contains(c.Kinds(), key.Kind) {
			continue
		}
		j := job{collector: i, first: true, last: true}
		if key.Kind.isFile() {
			j = job{collector: i, only: []string{key.Subject}}
		}
		l.look(ctx, j)
		return
	}
}

// touched gathers what watchers notice until the loop takes it.
type touched struct {
	wake chan struct{} // holds one

	mu      sync.Mutex
	pending map[int]Touched // guarded by mu; by collector
	seen    map[string]bool // guarded by mu; subjects in pending
}

func newTouched() *touched {
	return &touched{wake: make(chan struct{}, 1), pending: make(map[int]Touched), seen: make(map[string]bool)}
}

func (t *touched) add(collector int, more Touched) {
	t.mu.Lock()
	have := t.pending[collector]
	if more.All {
		have.All, have.Why = true, more.Why
	}
	for _, name := range more.Subjects {
		if !t.seen[name] {
			t.seen[name] = true
			have.Subjects = append(have.Subjects, name)
		}
	}
	t.pending[collector] = have
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *touched) take() map[int]Touched {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.pending
	t.pending, t.seen = make(map[int]Touched), make(map[string]bool)
	return out
}
