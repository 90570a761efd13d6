package flow

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

const (
	// restAfter is how often the engine looks for executions that only wait. One that has done nothing from one look to the next leaves
	// memory: its history is in the store, and who has something for it, or its alarm, loads it again.
	restAfter = 5 * time.Second
	// shortWait is a wait for which leaving is not worth it.
	shortWait = 2 * restAfter
)

// rests reports whether an open execution can stay in the store until its time has come, or somebody asks; then its alarm is set.
func (e *Engine) rests(row Row) bool {
	switch row.Wake.Kind {
	case WakePerson:
		if row.State == Stuck && strings.HasPrefix(row.Wake.For, strandedText) {
			return false // the tools may be here by now
		}
	case WakeTimer, WakeSignal:
	default:
		return false
	}
	if !row.Wake.At.IsZero() && row.Wake.At.Sub(now()) < shortWait {
		return false
	}
	e.resting.set(row.Wake.At, row.ID)
	return true
}

// watchRests wakes executions whose time has come, and has those leave memory that wait, until ctx ends. On a Shared store executions stay where they are: what
// an engine runs is known by its memory.
func (e *Engine) watchRests(ctx context.Context) {
	look := time.NewTicker(restAfter)
	defer look.Stop()
	bell := time.NewTimer(restAfter)
	defer bell.Stop()
	for {
		ids, next := e.resting.due(now())
		bell.Reset(next)
		var wait sync.WaitGroup
		slots := make(chan struct{}, 16)
		for _, id := range ids {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				e.rouse(ctx, id)
			})
		}
		wait.Wait()
		select {
		case <-bell.C:
		case <-e.resting.changed:
		case <-look.C:
			e.layDown()
		case <-ctx.Done():
			return
		}
	}
}

// rouse loads an execution whose time has come. What cannot be loaded now is tried again.
func (e *Engine) rouse(ctx context.Context, id string) {
	e.mu.Lock()
	live := e.running && !e.draining
	e.mu.Unlock()
	if !live {
		return
	}
	if err := e.adopt(ctx, id, 0); err != nil && !errors.Is(err, errStranded) && ctx.Err() == nil {
		if _, gone := e.config.Store.Get(ctx, id); errors.Is(gone, ErrNotFound) {
			return // it ended before its time, and was removed
		}
		e.log.Warn("an execution whose time has come cannot be loaded; it is tried again", "execution", id, "error", err)
		e.resting.set(now().Add(time.Second), id)
	}
}

// layDown has executions leave memory that have waited since the last look.
func (e *Engine) layDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.draining {
		return
	}
	for id, r := range e.runs {
		if at, leaves := r.layDown(); leaves {
			delete(e.runs, id)
			e.resting.set(at, id)
		}
	}
}

// layDown closes the run if it has only waited since the last call, and returns when it goes on.
func (r *run) layDown() (at time.Time, leaves bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy || r.closed != nil || r.x == nil || len(r.stops) > 0 {
		return at, false
	}
	if r.looked != r.x.Seq {
		r.looked = r.x.Seq
		return at, false
	}
	wake := r.x.wake()
	switch {
	case wake.Kind != WakePerson && wake.Kind != WakeTimer && wake.Kind != WakeSignal, r.x.active+r.x.undos > 0,
		!wake.At.IsZero() && wake.At.Sub(now()) < shortWait:
		return at, false
	}
	r.closed = errNotLive
	for timer := range r.timers {
		timer.Stop()
	}
	return wake.At, true
}
