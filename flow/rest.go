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

// rests reports whether an open execution, a member's in a Shared store, can stay in the store until its time has come, or somebody asks; then its alarm is set.
func (e *Engine) rests(row Row, member int64) bool {
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
	e.resting.set(row.Wake.At, row.ID, member)
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
		rung, next := e.resting.due(now())
		bell.Reset(next)
		var wait sync.WaitGroup
		slots := make(chan struct{}, 16)
		for _, a := range rung {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				e.rouse(ctx, a)
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
func (e *Engine) rouse(ctx context.Context, a alarm) {
	if !e.live() || !e.isMember(a.member) {
		return // the next engine has its own alarm
	}
	if err := e.adopt(ctx, a.id, a.member); err != nil && !errors.Is(err, errStranded) && ctx.Err() == nil {
		if _, gone := e.config.Store.Get(ctx, a.id); errors.Is(gone, ErrNotFound) || !e.isMember(a.member) {
			return // it ended before its time and was removed, or others own it by now
		}
		e.log.Warn("an execution whose time has come cannot be loaded; it is tried again", "execution", a.id, "error", err)
		e.resting.set(now().Add(time.Second), a.id, a.member)
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
		if e.shared != nil && (e.ends[id] != nil || e.moved.waited(id)) {
			continue // outside memory it would be looked up for them in the store, again and again, as those of other engines are
		}
		if at, leaves := r.layDown(); leaves {
			delete(e.runs, id)
			e.resting.set(at, id, r.owner)
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
