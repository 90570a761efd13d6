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

// watchRests wakes executions whose time has come, and has those leave memory that wait, until ctx ends. In a Shared store they stay the member's that ran them:
// the alarm is in that engine alone, and a letter finds it.
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
	member := e.part.current()
	e.mu.Unlock()
	if !live {
		return
	}
	err := e.mine(ctx, id, member)
	if err == nil {
		err = e.adopt(ctx, id, member)
	}
	switch {
	case err == nil, errors.Is(err, errStranded), errors.Is(err, errNotMine), ctx.Err() != nil:
		return
	}
	if _, gone := e.config.Store.Get(ctx, id); errors.Is(gone, ErrNotFound) {
		return // it ended before its time, and was removed
	}
	e.log.Warn("an execution whose time has come cannot be loaded; it is tried again", "execution", id, "error", err)
	e.resting.set(now().Add(time.Second), id)
}

// errNotMine says that an execution is another member's, which has its own alarm.
var errNotMine = errors.New("flow: another engine owns the execution")

// mine returns nil if an execution of a Shared store is the member's: alarms may outlive their member, as when it is fenced while an execution goes to rest, and what is
// loaded without being owned would look as if the member were fenced.
func (e *Engine) mine(ctx context.Context, id string, member int64) error {
	if e.shared == nil {
		return nil
	}
	row, err := e.config.Store.Get(ctx, id)
	if err == nil && (member == 0 || row.Owner != member) {
		return errNotMine
	}
	return err
}

// layDown has executions leave memory that have waited since the last look.
func (e *Engine) layDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.draining {
		return
	}
	for id, r := range e.runs {
		if e.shared != nil && (e.ends[id] != nil || e.moved.waited(id)) {
			continue // outside memory it would be looked up for them in the store, again and again, as those of other engines are
		}
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
