package flow

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// tell hands an input to an execution, live or not, here or in another engine, and returns once it is durable.
func (e *Engine) tell(ctx context.Context, id string, in input) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.mu.Lock()
		r := e.runs[id]
		live := e.running && !e.draining
		member := e.part.current()
		e.mu.Unlock()
		var err error
		switch {
		case r != nil:
			fate := make(chan error, 1)
			r.post(message{in: in, fate: fate})
			select {
			case err = <-fate:
			case <-ctx.Done():
				return ctx.Err()
			}
		case e.shared != nil:
			err = e.tellOwner(ctx, id, in, member)
		case live:
			err = e.revive(ctx, id, in, 0)
		default:
			e.rest.RLock()
			if e.live() {
				e.rest.RUnlock()
				continue // Run has begun meanwhile
			}
			err = e.tellAtRest(ctx, id, in)
			e.rest.RUnlock()
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errNotLive), errors.Is(err, errUnasked), e.shared != nil && (errors.Is(err, ErrFenced) || errors.Is(err, ErrStale)):
			continue // it ended meanwhile, or others own it now: look again
		}
		return err
	}
}

// live reports whether Run takes executions up.
func (e *Engine) live() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running && !e.draining
}

// tellOwner hands an input to an execution of a Shared store that is not live here.
func (e *Engine) tellOwner(ctx context.Context, id string, in input, member int64) error {
	row, err := e.config.Store.Get(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("execution %s: %w", id, err)
	case row.State.Ended() && member == 0 || row.Owner == 0 && member == 0:
		return e.tellAtRest(ctx, id, in)
	case row.State.Ended() || row.Owner == member:
		return e.revive(ctx, id, in, member)
	}
	return e.mail(ctx, id, in)
}

// revive makes an execution that is not live, since it has ended or was stranded, live again with an input. It returns errNotLive if it is live by now.
func (e *Engine) revive(ctx context.Context, id string, in input, member int64) error {
	row, err := e.config.Store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("execution %s: %w", id, err)
	}
	if row.State.Ended() && !(in.done && row.State == Done) {
		return fmt.Errorf("%w: execution %s is %s", ErrState, id, row.State)
	}
	if !row.State.Ended() {
		err := e.adopt(ctx, id, member)
		switch {
		case err == nil:
			return errNotLive
		case in.kind != inMigrate || !errors.Is(err, errStranded):
			return err
		}
	}
	r, fresh := e.reserve(id, member)
	if !fresh {
		return errNotLive
	}
	x, err := e.load(ctx, id)
	var p *program
	if err == nil {
		err = e.resolve(ctx, x.Flow, &in)
	}
	if p = in.program; err == nil && p == nil { // it is not stranded
		p, err = e.version(ctx, x.Flow, x.Version)
	}
	if err != nil {
		e.forget(r)
		return err
	}
	r.bind(p, x)
	fate := make(chan error, 1)
	r.first(message{in: in, fate: fate})
	r.drive().launch()
	if err = <-fate; err != nil && !x.State.Ended() {
		e.forget(r)
	}
	return err
}

// tellAtRest records an input while no engine runs; the next Run acts on it.
func (e *Engine) tellAtRest(ctx context.Context, id string, in input) error {
	x, err := e.load(ctx, id)
	if err != nil {
		return fmt.Errorf("execution %s: %w", id, err)
	}
	if x.State.Ended() {
		return fmt.Errorf("%w: execution %s is %s", ErrState, id, x.State)
	}
	p, err := e.version(ctx, x.Flow, x.Version)
	if err != nil {
		return err
	}
	if err := e.resolve(ctx, x.Flow, &in); err != nil {
		return err
	}
	m := &machine{p: p, x: x, now: now(), hold: true}
	prev := x.Seq
	m.step(in)
	if len(m.events) == 0 {
		return m.refused
	}
	return e.commit(m, prev)
}

// turnBack compensates an execution, even one that is done.
func (e *Engine) turnBack(ctx context.Context, id string, in input) error {
	row, err := e.config.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	if row.State == Failed || row.State == Cancelled {
		return nil
	}
	return e.tell(ctx, id, in)
}

// Get returns an execution with all of its steps, secrets struck out, or ErrNotFound.
func (e *Engine) Get(ctx context.Context, id string) (Execution, error) {
	x, err := e.load(ctx, id)
	if err != nil {
		return Execution{}, fmt.Errorf("flow: get %s: %w", id, err)
	}
	return x.shown(), nil
}

// List returns executions, newest first, without their steps and parameters, and where to go on: put next into Filter.After. next is "" at
// the end.
func (e *Engine) List(ctx context.Context, filter Filter) (executions []Execution, next string, err error) {
	if filter.Limit <= 0 || filter.Limit > 1000 {
		filter.Limit = 100
	}
	limit := filter.Limit
	filter.Limit++
	rows, err := e.config.Store.List(ctx, filter)
	if err != nil {
		return nil, "", fmt.Errorf("flow: list: %w", err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = rows[limit-1].ID
	}
	for _, r := range rows {
		x := Execution{
			ID: r.ID, Flow: r.Flow, Version: r.Version, Key: r.Key, Parent: r.Parent, State: r.State, Paused: r.Paused, Step: r.Step, Wake: r.Wake,
			Seq: r.Seq, Actor: r.Actor, Reason: r.Reason, Started: r.Started, Updated: r.Updated, Ended: r.Ended,
		}
		x.Waiting = r.Wake.For
		if r.Error != "" {
			x.Error = parseError(r.Error)
		}
		executions = append(executions, x)
	}
	return executions, next, nil
}

// Wait returns the execution once it has ended, secrets struck out, or ctx's error before.
func (e *Engine) Wait(ctx context.Context, id string) (Execution, error) {
	end, live := e.await(id)
	defer e.leave(id, end)
	if !live {
		row, err := e.config.Store.Get(ctx, id)
		if err != nil {
			return Execution{}, fmt.Errorf("flow: wait for %s: %w", id, err)
		}
		if row.State.Ended() {
			return e.Get(ctx, id)
		}
	}
	select {
	case <-end.done:
		return end.x.shown(), nil
	case <-ctx.Done():
		return Execution{}, context.Cause(ctx)
	}
}

// await joins those who wait for an execution's end, and reports whether the engine has it live: then it has not ended.
func (e *Engine) await(id string) (end *ending, live bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if end = e.ends[id]; end == nil {
		end = &ending{done: make(chan struct{})}
		e.ends[id] = end
	}
	end.waiting++
	return end, e.runs[id] != nil
}

// leave is the reverse of await.
func (e *Engine) leave(id string, end *ending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if end.waiting--; end.waiting == 0 && e.ends[id] == end {
		delete(e.ends, id)
	}
}

// Watch yields every event of an execution from its first, then those that come, in order, each once, secrets struck out. It ends after the
// execution's last event, when ctx ends, or after yielding an error.
func (e *Engine) Watch(ctx context.Context, id string) iter.Seq2[Event, error] {
	return e.events(ctx, id, true)
}

// History yields the events that an execution has so far, as Watch does, and ends.
func (e *Engine) History(ctx context.Context, id string) iter.Seq2[Event, error] {
	return e.events(ctx, id, false)
}

func (e *Engine) events(ctx context.Context, id string, follow bool) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		fail := func(err error) {
			if ctx.Err() == nil {
				yield(Event{}, fmt.Errorf("flow: watch %s: %w", id, err))
			}
		}
		hidden, err := e.revealed(ctx, id)
		if err != nil {
			fail(err)
			return
		}
		var after int64
		ended := false
		var next *bell
		defer func() { e.moved.leave(id, next) }()
		for {
			next = e.moved.wait(id, next)
			records, err := e.config.Store.History(ctx, id, after, 256)
			if err == nil && len(records) == 0 && after == 0 {
				err = ErrNotFound
			}
			var page []Event
			for _, record := range records {
				var events []Event
				if err == nil {
					events, err = DecodeEvents(id, record)
					page = append(page, events...)
				}
			}
			for i := range page {
				if err == nil {
					err = hidden.add(ctx, e, &page[i])
				}
			}
			if err != nil {
				fail(err)
				return
			}
			for i := range page {
				after = page[i].Seq
				ended = page[i].Kind == EventDone || page[i].Kind == EventFailed || page[i].Kind == EventCancelled
				if !yield(redact(page[i], hidden.secrets), nil) {
					return
				}
			}
			if len(records) > 0 {
				continue
			}
			if ended || !follow {
				return
			}
			select {
			case <-next.rung:
			case <-ctx.Done():
				return
			}
		}
	}
}
