package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Config is what a Loop needs. Name, Interval and Pass are required.
type Config struct {
	// Name begins the lines of the log and the errors.
	Name string

	// Interval is the time between two passes that nothing else brings forward.
	Interval time.Duration

	// Pass looks once at everything and acts. Its error does not end the loop, unless it wraps store.ErrFenced:
	// what failed is tried again by the next pass.
	Pass func(ctx context.Context) error

	// Sweep removes what is kept no longer. It runs after the first pass that succeeds, and then every SweepEvery
	// (default 1 h). Its error counts as that of the pass. Nil: there is nothing to remove.
	Sweep      func(ctx context.Context) error
	SweepEvery time.Duration

	// Store and Prefix say what is watched: a commit that touches a key below Prefix brings the next pass forward,
	// and so does the end of a watch, after which commits may have been missed. A nil Store: nothing is watched.
	Store  store.Store
	Prefix string

	// Wakes says which commits count. Nil: all of them.
	Wakes func(store.Event) bool

	// OnError is told the error of each pass that failed, from the goroutine of Run. Nil: nobody is.
	OnError func(error)

	Logger *slog.Logger // nil: off
}

// ErrRunning says that Run was called while it runs.
var ErrRunning = errors.New("Run is running already; call it once at a time")

// Loop runs passes. Its methods are safe for concurrent use.
type Loop struct {
	config  Config
	running atomic.Bool
	wake    chan struct{} // holds one: several reasons to look make one pass

	mu   sync.Mutex
	last error // guarded by mu; of the last pass
}

// New returns a Loop that does nothing until Run. All faults of config are reported at once.
func New(config Config) (*Loop, error) {
	var faults []error
	for _, f := range []struct {
		missing bool
		text    string
	}{
		{config.Name == "", "Name is empty: it begins the lines of the log"},
		{config.Interval <= 0, "Interval is not positive: give the time between two passes"},
		{config.Pass == nil, "Pass is nil: give what a pass does"},
		{config.SweepEvery < 0, "SweepEvery is negative: give a positive value, or 0 for 1 h"},
		{config.Store == nil && (config.Prefix != "" || config.Wakes != nil), "Store is nil, but Prefix or Wakes is set: give the store to watch"},
	} {
		if f.missing {
			faults = append(faults, errors.New(f.text))
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("reconcile: invalid Config: %w", errors.Join(faults...))
	}
	if config.SweepEvery == 0 {
		config.SweepEvery = time.Hour
	}
	if config.OnError == nil {
		config.OnError = func(error) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Loop{config: config, wake: make(chan struct{}, 1)}, nil
}

// Run passes at once, and then at each interval and each reason to look sooner, until ctx ends; it returns nil then,
// once the pass under way has returned. Only the loss of leadership ends it early, with an error that wraps
// store.ErrFenced. A loop that has ended may run again.
func (l *Loop) Run(ctx context.Context) error {
	if !l.running.CompareAndSwap(false, true) {
		return fmt.Errorf("%s: %w", l.config.Name, ErrRunning)
	}
	defer l.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	if l.config.Store != nil {
		watcher.Go(func() { l.watch(ctx) })
	}
	defer watcher.Wait()
	defer cancel()
	ticker := time.NewTicker(l.config.Interval)
	defer ticker.Stop()
	var swept time.Time
	for {
		err := l.config.Pass(ctx)
		if err == nil && l.config.Sweep != nil && (swept.IsZero() || time.Since(swept) >= l.config.SweepEvery) {
			err = l.config.Sweep(ctx)
			swept = time.Now()
		}
		if ctx.Err() != nil {
			return nil
		}
		l.note(err)
		if errors.Is(err, store.ErrFenced) {
			return fmt.Errorf("%s: stop: %w", l.config.Name, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-l.wake:
		}
	}
}

// Wake brings the next pass forward. It does not block; calls before a pass begins are one.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Err is what went wrong in the last pass, nil if nothing did.
func (l *Loop) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// note keeps the outcome of a pass, and logs it where it differs from that of the last.
func (l *Loop) note(err error) {
	l.mu.Lock()
	last := l.last
	l.last = err
	l.mu.Unlock()
	switch {
	case err != nil && (last == nil || last.Error() != err.Error()):
		l.config.Logger.Warn(l.config.Name+": pass failed; it is tried again", "err", err)
	case err == nil && last != nil:
		l.config.Logger.Info(l.config.Name + ": pass succeeds again")
	}
	if err != nil {
		l.config.OnError(err)
	}
}

// watch wakes the loop at commits below the prefix, so that orders are carried out at once.
func (l *Loop) watch(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		_, revision, err := l.config.Store.List(ctx, l.config.Prefix)
		if err == nil {
			if !first {
				l.Wake() // whatever was committed since the last watch ended was not seen
			}
			for event, err := range l.config.Store.Watch(ctx, l.config.Prefix, revision) {
				if err != nil {
					break
				}
				if l.config.Wakes == nil || l.config.Wakes(event) {
					l.Wake()
				}
			}
		}
		select { // the ticker does the work meanwhile
		case <-ctx.Done():
		case <-time.After(l.config.Interval):
		}
	}
}
