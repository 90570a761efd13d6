package storetest

import (
	"context"
	"iter"
	"sync"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Faulty is a store that fails on demand, in front of one that does not. The hooks may be changed at any time through
// Set; a nil hook does nothing.
type Faulty struct {
	store store.Store

	mu    sync.Mutex
	hooks Hooks         // guarded by mu
	cut   chan struct{} // guarded by mu; closed and replaced by Cut
	cause error         // guarded by mu; of the last Cut
}

// Hooks decide which calls fail. Each runs in the caller's goroutine, so that it may also wait.
type Hooks struct {
	List   func(prefix string) error     // before a listing
	Watch  func(prefix string) error     // before a watch
	Before func(ops []store.Op) error    // before a commit: it does not happen
	After  func(ops []store.Op) error    // after a commit that succeeded: its answer is lost
	Event  func(event store.Event) error // before an event is handed to a watcher
}

// NewFaulty returns a store in front of s without hooks.
func NewFaulty(s store.Store) *Faulty { return &Faulty{store: s, cut: make(chan struct{})} }

// Set replaces the hooks.
func (f *Faulty) Set(hooks Hooks) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = hooks
}

// Cut ends every watch with err.
func (f *Faulty) Cut(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cause = err
	close(f.cut)
	f.cut = make(chan struct{})
}

func (f *Faulty) now() (Hooks, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hooks, f.cut
}

// List implements store.Store.
func (f *Faulty) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if hooks, _ := f.now(); hooks.List != nil {
		if err := hooks.List(prefix); err != nil {
			return nil, 0, err
		}
	}
	return f.store.List(ctx, prefix)
}

// Watch implements store.Store.
func (f *Faulty) Watch(ctx context.Context, prefix string, after int64) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		hooks, cut := f.now()
		if hooks.Watch != nil {
			if err := hooks.Watch(prefix); err != nil {
				yield(store.Event{}, err)
				return
			}
		}
		watching, cancel := context.WithCancelCause(ctx)
		var cutter sync.WaitGroup
		defer cutter.Wait()
		defer cancel(nil)
		cutter.Go(func() {
			select {
			case <-cut:
				f.mu.Lock()
				cause := f.cause
				f.mu.Unlock()
				cancel(cause)
			case <-watching.Done():
			}
		})
		for event, err := range f.store.Watch(watching, prefix, after) {
			if err != nil && ctx.Err() == nil && watching.Err() != nil {
				err = context.Cause(watching)
			}
			if hooks, _ := f.now(); err == nil && hooks.Event != nil {
				if err = hooks.Event(event); err != nil {
					event = store.Event{}
				}
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Commit implements store.Store.
func (f *Faulty) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	hooks, _ := f.now()
	if hooks.Before != nil {
		if err := hooks.Before(ops); err != nil {
			return 0, err
		}
	}
	revision, err := f.store.Commit(ctx, ops...)
	if hooks, _ := f.now(); err == nil && hooks.After != nil {
		if err := hooks.After(ops); err != nil {
			return 0, err
		}
	}
	return revision, err
}
