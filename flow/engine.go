package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
	rooms     workrooms
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
		background.Go(func() { e.watchRests(root) })
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
	secrets := x.secrets()
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

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// newID returns an ID that sorts by time.
func newID() (string, error) {
	made, err := uid.Ordered()
	if err != nil {
		return "", fmt.Errorf("flow: make an ID: %w", err)
	}
	return made, nil
}
