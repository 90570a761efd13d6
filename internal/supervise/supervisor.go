package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/zhiyun-ops/zhiyun/internal/backoff"
)

// Config of a Supervisor.
type Config struct {
	// Dir keeps state and logs; made if absent. Required, absolute.
	Dir string
	// Poll is how often processes are looked at. Default: 50 ms.
	Poll time.Duration
	// MinBackoff and MaxBackoff bound the wait before a restart: it doubles from one to the other and starts
	// over after a run of Stable. Default: 200 ms, 10 s and 10 s.
	MinBackoff, MaxBackoff, Stable time.Duration
	// LogBytes is how large an instance's log grows before it is moved to NAME.log.1. Default: 4 MiB.
	LogBytes int64
	// Logger gets a line per change of state. Default: none.
	Logger *slog.Logger
	// Metrics gets zhiyun_supervise_... Default: none.
	Metrics prometheus.Registerer
	// OnChange, if set, is called after an instance changed its state, from Run's goroutine; it must not block.
	OnChange func(Process)
}

// Supervisor runs processes. Its methods are safe for concurrent use.
type Supervisor struct {
	config   Config
	log      *slog.Logger
	restarts prometheus.Counter
	digests  digests
	boot     string

	ready chan struct{} // closed when Run has read the state
	ended chan struct{} // closed when Run has returned
	wake  chan struct{} // capacity 1: reconcile now

	mu      sync.Mutex // guards what follows
	began   bool
	units   map[string]*unit
	changed chan struct{} // closed and replaced at each change
	pending []Process     // changes that OnChange has yet to hear
}

// unit is one spec with its instances.
type unit struct {
	spec      Spec
	stopping  bool
	grace     time.Duration
	instances []*instance
}

// New checks config and returns a supervisor that does nothing before Run.
func New(config Config) (*Supervisor, error) {
	var faults []error
	if !filepath.IsAbs(config.Dir) {
		faults = append(faults, fmt.Errorf("%w: Dir %q is not an absolute path", ErrInvalid, config.Dir))
	}
	for _, d := range []struct {
		name    string
		value   *time.Duration
		instead time.Duration
	}{
		{"Poll", &config.Poll, 50 * time.Millisecond},
		{"MinBackoff", &config.MinBackoff, 200 * time.Millisecond},
		{"MaxBackoff", &config.MaxBackoff, 10 * time.Second},
		{"Stable", &config.Stable, 10 * time.Second},
	} {
		if *d.value < 0 {
			faults = append(faults, fmt.Errorf("%w: %s %v is negative; leave it zero for %v", ErrInvalid, d.name, *d.value, d.instead))
		}
		if *d.value == 0 {
			*d.value = d.instead
		}
	}
	if config.LogBytes < 0 {
		faults = append(faults, fmt.Errorf("%w: LogBytes %d is negative", ErrInvalid, config.LogBytes))
	}
	if config.LogBytes == 0 {
		config.LogBytes = 4 << 20
	}
	s := &Supervisor{
		config:   config,
		log:      config.Logger,
		boot:     bootID(),
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		wake:     make(chan struct{}, 1),
		units:    map[string]*unit{},
		changed:  make(chan struct{}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_supervise_restarts_total", Help: "Processes started again after they ended."}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if config.Metrics != nil && len(faults) == 0 {
		if err := config.Metrics.Register(s.restarts); err != nil {
			faults = append(faults, fmt.Errorf("supervise: Metrics: %w", err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return s, nil
}

// Run supervises until ctx ends; the processes live on. It may be called once.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.began {
		s.mu.Unlock()
		return fmt.Errorf("supervise: Run was called before: %w", ErrClosed)
	}
	s.began = true
	s.mu.Unlock()
	defer close(s.ended)

	if err := os.MkdirAll(s.logDir(), 0o700); err != nil {
		return fmt.Errorf("supervise: make folder: %w", err)
	}
	unlock, err := lockDir(s.config.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(); err != nil {
		return err
	}
	close(s.ready)

	tick := time.NewTicker(s.config.Poll)
	defer tick.Stop()
	for {
		s.reconcile(time.Now())
		s.tell()
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// Start has spec run, and returns when each instance was started once. A spec that runs already changes
// nothing; another spec of the same name takes its place after it was stopped. If the executable cannot be
// started, nothing is kept and the error is a *SpawnError.
func (s *Supervisor) Start(ctx context.Context, spec Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	spec = spec.normal()
	if err := s.await(ctx); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		u := s.units[spec.Name]
		if u == nil {
			break
		}
		if !u.stopping && u.spec.Equal(spec) {
			s.mu.Unlock()
			return s.started(ctx, u)
		}
		grace := 10 * time.Second
		if u.stopping {
			grace = u.grace
		}
		s.mu.Unlock()
		if err := s.Stop(ctx, spec.Name, grace); err != nil {
			return fmt.Errorf("replace %s: %w", spec.Name, err)
		}
	}
	u := &unit{spec: spec}
	for i := range spec.Count {
		u.instances = append(u.instances, s.newInstance(spec, i))
	}
	if err := s.save(u); err != nil {
		s.mu.Unlock()
		return err
	}
	s.units[spec.Name] = u
	s.mu.Unlock()
	s.nudge()
	return s.started(ctx, u)
}

// started waits until every instance of u was spawned; a failure takes the unit away again.
func (s *Supervisor) started(ctx context.Context, u *unit) error {
	for {
		s.mu.Lock()
		done, changed := true, s.changed
		var failed error
		for _, i := range u.instances {
			if i.spawnErr != nil && failed == nil {
				failed = i.spawnErr
			}
			done = done && (i.machine.state != Starting || i.machine.restarts > 0)
		}
		if s.units[u.spec.Name] != u {
			s.mu.Unlock()
			return fmt.Errorf("supervise: start %s: it was stopped meanwhile", u.spec.Name)
		}
		s.mu.Unlock()
		if failed != nil {
			return errors.Join(failed, s.Stop(ctx, u.spec.Name, 10*time.Second))
		}
		if done {
			return nil
		}
		if err := s.wait(ctx, changed, "start "+u.spec.Name); err != nil {
			return err
		}
	}
}

// Stop ends the process of that name with everything in its process group: SIGTERM, and SIGKILL after grace.
// It returns when none is left. A name that is not known is no error: it does not run.
func (s *Supervisor) Stop(ctx context.Context, name string, grace time.Duration) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	u := s.units[name]
	if u == nil {
		s.mu.Unlock()
		return nil
	}
	u.stopping, u.grace = true, max(grace, 0)
	if err := s.save(u); err != nil { // on a full disk stopping must work: its end is a file removed
		s.log.Error("cannot keep that a process stops", "name", name, "error", err)
	}
	for _, i := range u.instances {
		s.apply(i, time.Now(), evStop, u.grace)
	}
	s.mu.Unlock()
	s.nudge()
	for {
		s.mu.Lock()
		gone, changed := s.units[name] != u, s.changed
		s.mu.Unlock()
		if gone {
			return nil
		}
		if err := s.wait(ctx, changed, "stop "+name); err != nil {
			return err
		}
	}
}

// Kick starts the waiting instances of name at once, without the rest of their backoff.
func (s *Supervisor) Kick(ctx context.Context, name string) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[name]
	if u == nil || u.stopping {
		return fmt.Errorf("kick %s: %w", name, ErrUnknown)
	}
	for _, i := range u.instances {
		s.apply(i, time.Now(), evKick, 0)
	}
	s.nudge()
	return nil
}

// Continue has the instances of name go on that a signal has stopped; those that run take no notice.
func (s *Supervisor) Continue(ctx context.Context, name string) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[name]
	if u == nil || u.stopping {
		return fmt.Errorf("continue %s: %w", name, ErrUnknown)
	}
	for _, i := range u.instances {
		i.signal(unix.SIGCONT)
	}
	return nil
}

// Specs lists what was asked to run and not to stop, by name.
func (s *Supervisor) Specs() []Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	var specs []Spec
	for _, u := range s.units {
		if !u.stopping {
			specs = append(specs, u.spec.normal())
		}
	}
	slices.SortFunc(specs, func(a, b Spec) int { return cmpString(a.Name, b.Name) })
	return specs
}

// List shows every instance, by name and number.
func (s *Supervisor) List() []Process {
	s.mu.Lock()
	var list []Process
	for _, u := range s.units {
		for _, i := range u.instances {
			list = append(list, i.process(u.spec))
		}
	}
	s.mu.Unlock()
	for n := range list {
		if list[n].PID != 0 {
			list[n].ExeDigest = s.digests.of(list[n].PID, list[n].Exe)
		}
	}
	slices.SortFunc(list, func(a, b Process) int {
		if a.Name != b.Name {
			return cmpString(a.Name, b.Name)
		}
		return a.Instance - b.Instance
	})
	return list
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Ready waits until Run has adopted what lives.
func (s *Supervisor) Ready(ctx context.Context) error { return s.await(ctx) }

func (s *Supervisor) await(ctx context.Context) error {
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-s.ended:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("supervise: wait for Run: %w", ctx.Err())
	}
}

func (s *Supervisor) wait(ctx context.Context, changed <-chan struct{}, what string) error {
	select {
	case <-changed:
		return nil
	case <-s.ended:
		return fmt.Errorf("%s: %w", what, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("supervise: %s: %w", what, ctx.Err())
	}
}

func (s *Supervisor) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// broadcast tells the waiters. The caller holds mu.
func (s *Supervisor) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// tell calls OnChange outside of the lock.
func (s *Supervisor) tell() {
	s.mu.Lock()
	pending := s.pending
	s.pending = nil
	s.mu.Unlock()
	if s.config.OnChange != nil {
		for _, p := range pending {
			s.config.OnChange(p)
		}
	}
}

func (s *Supervisor) newDelays() delays {
	return backoff.New(backoff.Config{First: s.config.MinBackoff, Most: s.config.MaxBackoff, Jitter: 0.2})
}
