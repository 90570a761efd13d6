package drift

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Agent keeps watch over one device: it compares it with what it should be, reports what differs, and, where told
// to, has it repaired. Make it with New. It is safe for concurrent use.
type Agent struct {
	config  Config
	metrics *metrics
	running atomic.Bool

	mu         sync.Mutex
	desired    State         // guarded by mu; as last declared
	generation string        // guarded by mu; "" before the first
	findings   []Finding     // guarded by mu; open ones
	lastHold   int           // guarded by mu
	local      map[int]Hold  // guarded by mu; holds in force
	changed    chan struct{} // guarded by mu; closed and replaced when local changes
}

// ErrRunning says that the agent runs already.
var ErrRunning = errors.New("drift: the agent runs already; make a second one with New")

// New returns an agent that does nothing yet. All faults of config are reported at once; each is a *ConfigError.
func New(config Config) (*Agent, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(config.Metrics)
	if err != nil {
		return nil, err
	}
	return &Agent{config: config, metrics: m, local: make(map[int]Hold), changed: make(chan struct{})}, nil
}

// Run watches until ctx ends; then it waits for repairs and the last report, and returns nil. Repairs at work get
// their context cancelled. An agent that has ended may run again.
func (a *Agent) Run(ctx context.Context) error {
	if !a.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer a.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := newLoop(a)
	var group sync.WaitGroup // of all goroutines but repairs, which the loop waits for
	if a.config.Reporter != nil {
		group.Go(func() { l.outbox.run(ctx) })
	}
	group.Go(func() { a.fetch(ctx, l.declared) })
	for i, collector := range a.config.Collectors {
		if w, ok := collector.(Watcher); ok {
			group.Go(func() { a.watch(ctx, w, func(t Touched) { l.touched.add(i, t) }) })
		}
	}
	l.run(ctx)
	cancel()
	group.Wait()
	return nil
}

// declaration is a desired state with its generation.
type declaration struct {
	state      State
	generation string
}

// fetch asks for the declared state whenever it may have changed.
func (a *Agent) fetch(ctx context.Context, out chan<- declaration) {
	var pause time.Duration
	for ctx.Err() == nil {
		state, generation, err := a.config.Desired.Desired(ctx)
		wait := a.config.Rescan
		if err != nil {
			if pause == 0 && ctx.Err() == nil {
				a.config.Logger.Warn("drift: the declared state could not be got; the last one stays in force", "error", err)
			}
			pause = min(max(2*pause, time.Second), 30*time.Second)
			wait = pause
		} else {
			pause = 0
			select {
			case out <- declaration{state, generation}:
			case <-ctx.Done():
				return
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-a.config.Desired.Changed():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch keeps a Watcher going.
func (a *Agent) watch(ctx context.Context, w Watcher, changed func(Touched)) {
	pause := time.Second
	for {
		started := time.Now()
		err := w.Watch(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		changed(Touched{All: true, Why: "watching ended"})
		a.config.Logger.Warn("drift: changes are not noticed as they happen; rescans go on", "kinds", w.Kinds(), "error", err)
		if pause = min(2*pause, time.Minute); time.Since(started) > time.Minute {
			pause = time.Second
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Findings returns the open findings, in the order of kind and subject. The caller must not change them.
func (a *Agent) Findings() []Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.findings)
}

// Desired returns the declared state in force and its generation, which is empty before the first was got.
func (a *Agent) Desired() (State, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.desired, a.generation
}

// Live observes the device now, as far as the declared state in force speaks of it.
func (a *Agent) Live(ctx context.Context) (State, error) {
	desired, _ := a.Desired()
	return Collect(ctx, desired, a.config.Collectors...)
}

// Hold keeps repairs back that h covers until release is called or h expires: for tools that change the device on
// purpose. It may be called at any time, and release more than once.
func (a *Agent) Hold(h Hold) (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastHold++
	id := a.lastHold
	a.local[id] = h
	a.tellHolds()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.local, id)
		a.tellHolds()
	}
}

// tellHolds wakes the loop. The caller holds mu.
func (a *Agent) tellHolds() {
	close(a.changed)
	a.changed = make(chan struct{})
}
