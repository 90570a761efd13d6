package flow

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

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
			if e.rests(row, 0) {
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
	r.drive().launch()
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
		return nil, ErrNotFound
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
