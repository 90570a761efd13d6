package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// Config says what an Engine works with.
type Config struct {
	// Store keeps everything. Required. One engine at a time runs on a store, unless it is Shared, as pgstore's is.
	Store Store
	// Name is this process's among the engines of a Shared store. An engine that starts takes over at once what an engine of the same
	// name ran that is known to be dead. Default: the name of the host.
	Name string
	// Heartbeat is how often an engine tells a Shared store that it lives. One that has been silent for 2.5 heartbeats is taken for dead, and the others take its
	// executions over. At least 10ms; default 2s.
	Heartbeat time.Duration
	// Tools are the tools that steps may name. Required.
	Tools *Tools
	// Remote runs attempts on devices. Default: none; a step with "on" fails.
	Remote Remote
	// Notifier gets the notices of notify steps, and those of executions that failed or are stuck. Default: they stay
	// in the history alone.
	Notifier Notifier
	// Concurrency bounds the attempts that run in this process at a time. Default 64.
	Concurrency int
	// Limits bounds what runs further. Default: no tool, device or module is bounded, and 100,000 executions may be open.
	Limits Limits
	// Grace is how long Run lets attempts in this process finish when its context ends. Default 5s. What is not
	// finished by then is killed and in doubt for the next engine. Attempts on devices go on.
	Grace time.Duration
	// Env is added to the environment of tools that are processes here, as NAME=value.
	Env []string
	// Logger gets a line per change of an execution's state. Default: none.
	Logger *slog.Logger
	// Metrics registers zhiyun_flow_... Default: none.
	Metrics prometheus.Registerer
	// OnEvent is called with every event once it is durable, in order for each execution. It must return soon, and must not call
	// the engine. Default: none.
	OnEvent func(Event)
	// OnLog is called with what attempts write to stderr, as it comes, secrets struck out. It must return soon. Default: none.
	OnLog func(Call, []byte)
	// LogDir is a folder for what attempts write to stderr, a file each, secrets struck out. Default: none; then the last MaxLogs bytes of
	// an attempt stand in the history, and there alone.
	LogDir string
	// LogLimit bounds the file of one attempt, in bytes; what comes after is dropped, and the file says so. Default DefaultLogLimit.
	LogLimit int64
	// Retention says how long executions that have ended are kept. Default: for ever.
	Retention Retention
}

// Engine runs flows.
//
//	New -> Run -> (context ends) drains, returns
//
// Save, Start and the verbs work before Run as well: what they ask for is durable and begins with Run. All methods are safe for
// concurrent use.
type Engine struct {
	config    Config
	log       *slog.Logger
	metrics   *metrics
	committer *committer
	logs      *logbook
	gate      *gate
	attempts  sync.WaitGroup
	failed    chan error    // the store's failure, once
	noticed   chan struct{} // there are notices to deliver
	resting   resting
	shared    Shared        // nil: the store is this engine's alone
	poked     chan struct{} // the store has said that something happened
	moved     bells         // rung when an execution has new events

	rest sync.RWMutex // held for reading while an execution is told something that no engine runs, for writing as Run begins

	mu       sync.Mutex // guards what follows
	part     membership
	stirred  chan struct{} // closed with the next poke; nil while nobody waits
	pressure pressure
	running  bool
	draining bool
	root     context.Context // of attempts here
	away     context.Context // of attempts on devices, and of sub-flows
	runs     map[string]*run
	latest   map[string]*program
	versions map[versionKey]*program
	ends     map[string]*ending // of executions that somebody waits for
}

// ending is what those share who wait for the end of an execution.
type ending struct {
	done    chan struct{}
	x       *Execution // set before done is closed
	waiting int        // guarded by Engine.mu
}

type versionKey struct {
	name    string
	version int
}

// New checks the configuration. It starts nothing.
func New(config Config) (*Engine, error) {
	var faults []error
	if config.Store == nil {
		faults = append(faults, errors.New("flow: Config.Store is nil: hand in sqlitestore.New(db), or memstore.New() in tests"))
	}
	if config.Tools == nil {
		faults = append(faults, errors.New("flow: Config.Tools is nil: hand in flow.NewTools() with your tools registered"))
	} else if err := config.Tools.Err(); err != nil {
		faults = append(faults, fmt.Errorf("flow: Config.Tools: %w", err))
	}
	if config.Concurrency < 0 {
		faults = append(faults, fmt.Errorf("flow: Config.Concurrency is %d: want at least 1, or 0 for 64", config.Concurrency))
	}
	if config.Grace < 0 {
		faults = append(faults, fmt.Errorf("flow: Config.Grace is %s: want a positive duration, or 0 for 5s", config.Grace))
	}
	if config.LogLimit < 0 {
		faults = append(faults, fmt.Errorf("flow: Config.LogLimit is %d: want a positive number of bytes, or 0 for %d", config.LogLimit, DefaultLogLimit))
	}
	faults = append(faults, config.Retention.check()...)
	if config.Heartbeat < 0 || config.Heartbeat > 0 && config.Heartbeat < 10*time.Millisecond {
		faults = append(faults, fmt.Errorf("flow: Config.Heartbeat is %s: want at least 10ms, or 0 for 2s", config.Heartbeat))
	}
	faults = append(faults, config.Limits.check()...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if config.Heartbeat == 0 {
		config.Heartbeat = 2 * time.Second
	}
	if config.Name == "" {
		config.Name, _ = os.Hostname() // without a name, a restart waits for the lease of the last process
	}
	if config.Limits.Open == 0 {
		config.Limits.Open = defaultOpen
	}
	if config.Concurrency == 0 {
		config.Concurrency = 64
	}
	if config.Grace == 0 {
		config.Grace = 5 * time.Second
	}
	e := &Engine{
		config: config, log: config.Logger,
		pressure: pressure{bound: config.Limits.Open}, failed: make(chan error, 1), noticed: make(chan struct{}, 1),
		poked: make(chan struct{}, 1), part: membership{heartbeat: config.Heartbeat}, resting: resting{changed: make(chan struct{}, 1)},
		runs: map[string]*run{}, latest: map[string]*program{}, versions: map[versionKey]*program{}, ends: map[string]*ending{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.shared, _ = config.Store.(Shared)
	var err error
	if e.metrics, err = newMetrics(config.Metrics); err != nil {
		return nil, fmt.Errorf("flow: Config.Metrics: %w", err)
	}
	e.logs = newLogbook(config.LogDir, config.LogLimit, e.log)
	e.gate = newGate(&config, &e.attempts)
	if config.Metrics != nil {
		if err := config.Metrics.Register(e.gate); err != nil {
			return nil, fmt.Errorf("flow: Config.Metrics: %w", err)
		}
	}
	e.committer = &committer{store: config.Store, context: e.patience, failed: func(err error) { e.failed <- err }}
	return e, nil
}

// Run takes up every open execution, runs them and those that are started, and delivers notices, until ctx ends; then it lets local attempts
// finish for the grace period and returns nil. It returns an error when the store fails. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	root, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(ErrClosed)
	away, detach := context.WithCancelCause(root)
	defer detach(ErrClosed)
	e.rest.Lock() // what is told at rest is stored before anything is taken up
	e.mu.Lock()
	if e.root != nil {
		e.mu.Unlock()
		e.rest.Unlock()
		return errors.New("flow: Run was called before; make another engine")
	}
	e.root, e.away, e.running = root, away, true
	e.mu.Unlock()
	e.rest.Unlock()

	var background sync.WaitGroup
	if e.config.Notifier != nil {
		background.Go(func() { e.deliver(root) })
	}
	if e.config.Retention.on() {
		background.Go(func() { e.retain(root) })
	}
	err := e.refreshLocks(ctx)
	switch {
	case err != nil:
	case e.shared != nil:
		background.Go(func() { e.followLocks(root) })
		background.Go(func() { e.join(root) })
	default:
		background.Go(func() { e.followLocks(root) })
		background.Go(func() { e.watchStarts(root) })
		background.Go(func() { e.watchRests(root) })
		err = e.takeUp(ctx)
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-e.failed:
		}
	}
	e.mu.Lock()
	e.draining = true
	runs := make([]*run, 0, len(e.runs))
	for _, r := range e.runs {
		runs = append(runs, r)
	}
	e.mu.Unlock()
	for _, r := range runs {
		r.quiesce()
	}
	e.gate.close()
	detach(ErrClosed)
	e.drain(cancel)
	background.Wait()
	if e.shared != nil {
		e.quit(ctx)
	}
	return err
}

// patience bounds how long a commit waits for a store that is away: while the engine runs until it has drained, else forever.
func (e *Engine) patience() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.root == nil || e.root.Err() != nil {
		return context.Background()
	}
	return e.root
}

// drain waits for local attempts, then ends all.
func (e *Engine) drain(cancel context.CancelCauseFunc) {
	done := make(chan struct{})
	go func() { // ends when the attempts have; Run waits for it below
		e.attempts.Wait()
		close(done)
	}()
	timer := time.NewTimer(e.config.Grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	cancel(ErrClosed)
	<-done
}

// takeUp loads every open execution and goes on with it.
func (e *Engine) takeUp(ctx context.Context) error {
	after := ""
	for {
		rows, err := e.config.Store.List(ctx, Filter{Open: true, Limit: 500, After: after})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("flow: list open executions: %w", err)
		}
		var wait sync.WaitGroup
		var mu sync.Mutex
		var faults []error
		limit := make(chan struct{}, 16)
		for _, row := range rows {
			if e.rests(row) {
				continue
			}
			limit <- struct{}{}
			wait.Go(func() {
				defer func() { <-limit }()
				if err := e.adopt(ctx, row.ID, 0); err != nil && !errors.Is(err, errStranded) {
					mu.Lock()
					defer mu.Unlock()
					faults = append(faults, err)
				}
			})
		}
		wait.Wait()
		if err := errors.Join(faults...); err != nil && ctx.Err() == nil {
			return err
		}
		if len(rows) < 500 || ctx.Err() != nil {
			return nil
		}
		after = rows[len(rows)-1].ID
	}
}

// adopt loads an open execution, which is the member's in a Shared store, and goes on with it, unless it is live already.
func (e *Engine) adopt(ctx context.Context, id string, member int64) error {
	r, fresh := e.reserve(id, member)
	if !fresh && (r == nil || r.owner != member) {
		return errNotLive // a start without an owner, or what the last member ran, is just leaving
	}
	if !fresh {
		return nil
	}
	x, err := e.load(ctx, id)
	if err == nil && x.State.Ended() {
		e.forget(r)
		return nil
	}
	var p *program
	var broken *DefinitionError
	if err == nil {
		p, err = e.version(ctx, x.Flow, x.Version)
		if errors.As(err, &broken) {
			return e.strand(r, x, broken)
		}
	}
	if err != nil {
		e.forget(r)
		return fmt.Errorf("flow: take up execution %s: %w", id, err)
	}
	r.bind(p, x)
	e.resting.clear(id) // it sets another one if it leaves again
	r.first(message{in: input{kind: inRecover}})
	r.drive()
	return nil
}

const strandedText = "its definition does not compile with the tools registered here: "

// strand parks an execution whose definition does not compile against the tools at hand. The next Run tries again.
func (e *Engine) strand(r *run, x *Execution, broken *DefinitionError) error {
	defer e.forget(r)
	x.owner = r.owner
	why := strandedText + broken.Faults[0].String()
	if x.State == Stuck && x.Waiting == why {
		return errStranded
	}
	m := &machine{x: x, now: now()}
	prev := x.Seq
	m.emit(Event{Kind: EventStuck, Reason: why})
	m.notice("stuck", "critical", fmt.Sprintf("flow %s waits for a person: %s", x.Flow, why))
	if err := e.commit(m, prev); err != nil {
		return err
	}
	return errStranded
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// reserve makes the live entry of an execution, owned (busy) by the caller, for a member of a Shared store. For one that is gone there is none.
func (e *Engine) reserve(id string, member int64) (r *run, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.runs[id]; r != nil {
		return r, false
	}
	if member != 0 && member != e.part.current() {
		return nil, false
	}
	r = &run{engine: e, id: id, owner: member, busy: true, hold: e.draining, stops: map[string]context.CancelCauseFunc{}}
	e.runs[id] = r
	return r, true
}

func (e *Engine) forget(r *run) {
	e.mu.Lock()
	if e.runs[r.id] == r {
		delete(e.runs, r.id)
	}
	e.mu.Unlock()
	r.close(errNotLive)
}

// load folds an execution's history.
func (e *Engine) load(ctx context.Context, id string) (*Execution, error) {
	records, err := e.config.Store.History(ctx, id, 0, 0)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("%w: execution %s", ErrNotFound, id)
	}
	var x *Execution
	for _, record := range records {
		events, err := DecodeEvents(id, record)
		if err != nil {
			return nil, err
		}
		for i := range events {
			if x == nil {
				def, err := e.definition(ctx, events[i].Flow, events[i].Version)
				if err != nil {
					return nil, err
				}
				x = newExecution(def, id)
				x.lookup = func(version int) (*Definition, error) { return e.definition(ctx, x.Flow, version) }
			}
			x.apply(&events[i])
		}
	}
	if x.broken != nil {
		return nil, fmt.Errorf("flow: execution %s was moved to another version: %w", id, x.broken)
	}
	x.lookup, x.taken, x.freed = nil, nil, nil // taken and freed long since
	x.Wake = x.wake()
	return x, nil
}

// commit makes a transition durable and tells who listens.
func (e *Engine) commit(m *machine, prev int64) error {
	if e.config.Notifier == nil {
		m.notices = nil
	}
	taken, freed := m.x.taken, m.x.freed
	if err := e.committer.commit(m.transition(prev)); err != nil {
		if errors.Is(err, ErrFenced) {
			e.lost(m.x.owner)
		}
		e.gate.untaken(taken, err)
		return err
	}
	e.gate.unlocked(freed)
	e.publish(m)
	return nil
}

// publish hands durable events on.
func (e *Engine) publish(m *machine) {
	x := m.x
	e.moved.ring(x.ID)
	e.mu.Lock()
	if x.State.Ended() {
		e.pressure.left(m.now)
		delete(e.runs, x.ID) // no longer live, in the same moment in which those who wait are told
		if end := e.ends[x.ID]; end != nil {
			end.x = x
			close(end.done)
			delete(e.ends, x.ID)
		}
	}
	e.mu.Unlock()
	secrets := x.def.secrets(x.Params)
	for i := range m.events {
		event := &m.events[i]
		e.metrics.event(event)
		switch event.Kind {
		case EventStarted, EventCompensating, EventStuck, EventDone, EventFailed, EventCancelled, EventPaused, EventResumed:
			e.log.Info(string(event.Kind), "execution", x.ID, "flow", x.Flow, "step", x.Step, "actor", redactText(event.Actor, secrets), "reason", redactText(event.Reason, secrets), "error", redactText(errorText(event.Error), secrets))
		}
		if e.config.OnEvent != nil {
			e.config.OnEvent(redact(*event, secrets))
		}
	}
	if len(m.notices) > 0 {
		e.pokeNotices()
	}
}

func (e *Engine) pokeNotices() {
	select {
	case e.noticed <- struct{}{}:
	default:
	}
}

func errorText(err *Error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// newID returns an ID that sorts by time.
func newID() (string, error) {
	made, err := uid.Ordered()
	if err != nil {
		return "", fmt.Errorf("flow: make an ID: %w", err)
	}
	return made, nil
}

// program returns a version of a flow to start, 0 for the latest.
func (e *Engine) program(ctx context.Context, name string, version int) (*program, error) {
	e.mu.Lock()
	p := e.latest[name]
	e.mu.Unlock()
	if p != nil && version == 0 {
		return p, nil
	}
	return e.version(ctx, name, version)
}

// version returns a version of a flow, 0 for the latest, compiled.
func (e *Engine) version(ctx context.Context, name string, version int, calling ...versionKey) (*program, error) {
	e.mu.Lock()
	p := e.versions[versionKey{name, version}]
	e.mu.Unlock()
	if p != nil {
		return p, nil
	}
	r, err := e.config.Store.Definition(ctx, name, version)
	if version == 0 && errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: no flow is called %q", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", name, err)
	}
	p, faults, err := e.compile(ctx, r.Source, calling...)
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", name, err)
	}
	if len(faults) > 0 {
		// What it calls may have changed since it was saved: that is found out when it is called.
		p, faults = compile(r.Source, e.config.Tools)
	}
	if len(faults) > 0 {
		return nil, &DefinitionError{name, faults}
	}
	p.Version, p.SavedAt = r.Version, r.SavedAt
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(p)
	if version == 0 && (e.latest[name] == nil || e.latest[name].Version < r.Version) {
		e.latest[name] = p
	}
	return p, nil
}

// maxVersions bounds the compiled versions that are kept beside the latest of each flow. What is compiled again is that of executions which come back to
// memory after so many others.
const maxVersions = 256

// keep keeps a compiled version. The caller holds the mutex.
func (e *Engine) keep(p *program) {
	for key := range e.versions { // any: those in use are the executions' own
		if len(e.versions) < maxVersions {
			break
		}
		delete(e.versions, key)
	}
	e.versions[versionKey{p.Name, p.Version}] = p
}

// definition returns a version of a flow, which need not compile.
func (e *Engine) definition(ctx context.Context, name string, version int) (*Definition, error) {
	p, err := e.version(ctx, name, version)
	if err == nil {
		return &p.Definition, nil
	}
	r, err := e.config.Store.Definition(ctx, name, version)
	if err != nil {
		return nil, fmt.Errorf("flow %s version %d: %w", name, version, err)
	}
	d := parse(r.Source)
	d.Version, d.SavedAt = r.Version, r.SavedAt
	return &d.Definition, nil
}

// Save checks a document and stores it as the next version of its flow. A document equal to the latest version is not
// stored again. What is wrong with it is a *DefinitionError.
func (e *Engine) Save(ctx context.Context, source []byte) (Definition, error) {
	p, faults, err := e.compile(ctx, source)
	if err != nil {
		return Definition{}, fmt.Errorf("flow: save: %w", err)
	}
	if len(faults) > 0 {
		d := parse(source)
		return Definition{}, &DefinitionError{d.Name, faults}
	}
	for {
		last, err := e.config.Store.Definition(ctx, p.Name, 0)
		switch {
		case err == nil && last.Digest == p.Digest:
			p.Version, p.SavedAt = last.Version, last.SavedAt
			return p.Definition, nil
		case err == nil || errors.Is(err, ErrNotFound):
			p.Version, p.SavedAt = last.Version+1, now()
		default:
			return Definition{}, fmt.Errorf("flow: save %s: %w", p.Name, err)
		}
		err = e.config.Store.PutDefinition(ctx, DefinitionRecord{p.Name, p.Version, p.Digest, p.Source, p.SavedAt})
		if errors.Is(err, ErrExists) {
			continue // another save was faster
		}
		if err != nil {
			return Definition{}, fmt.Errorf("flow: save %s: %w", p.Name, err)
		}
		e.mu.Lock()
		e.keep(p)
		if last := e.latest[p.Name]; last == nil || last.Version < p.Version { // another save may have been faster here, too
			e.latest[p.Name] = p
		}
		e.mu.Unlock()
		return p.Definition, nil
	}
}

// Definitions returns the latest version of each flow, by name.
func (e *Engine) Definitions(ctx context.Context) ([]Definition, error) {
	records, err := e.config.Store.Definitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("flow: list definitions: %w", err)
	}
	out := make([]Definition, 0, len(records))
	for _, r := range records {
		d := parse(r.Source)
		d.Version, d.SavedAt = r.Version, r.SavedAt
		out = append(out, d.Definition)
	}
	return out, nil
}

// Definition returns a version of a flow, 0 for the latest, or ErrNotFound.
func (e *Engine) Definition(ctx context.Context, name string, version int) (Definition, error) {
	d, err := e.definition(ctx, name, version)
	if err != nil {
		return Definition{}, err
	}
	out := *d
	out.Steps = slices.Clone(out.Steps)
	return out, nil
}
