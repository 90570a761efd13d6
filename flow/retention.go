package flow

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// Retention says how long executions that have ended are kept, with their histories and logs. With an execution its key is
// forgotten: the same key starts the flow again. Keep them longer than a start may be repeated.
type Retention struct {
	// Keep is how long after its end an execution is kept. Default 0: for ever.
	Keep time.Duration
	// Flows has another Keep for some flows, 0 for ever.
	Flows map[string]time.Duration
	// Every is how often Run looks. Default 10m.
	Every time.Duration
}

// pruneBatch is how many executions one write removes: it holds up steps for some milliseconds.
const pruneBatch = 50

func (r *Retention) on() bool {
	for _, keep := range r.Flows {
		if keep > 0 {
			return true
		}
	}
	return r.Keep > 0
}

// of returns how long executions of a flow are kept; 0 is for ever.
func (r *Retention) of(flow string) time.Duration {
	if keep, found := r.Flows[flow]; found {
		return keep
	}
	return r.Keep
}

func (r *Retention) check() []error {
	var faults []error
	bad := func(field string, d time.Duration, zero string) {
		if d < 0 {
			faults = append(faults, fmt.Errorf("flow: Config.Retention.%s is %s: want a positive duration, or 0 for %s", field, d, zero))
		}
	}
	bad("Keep", r.Keep, "ever")
	bad("Every", r.Every, "10m")
	for _, flow := range slices.Sorted(maps.Keys(r.Flows)) {
		bad("Flows["+flow+"]", r.Flows[flow], "ever")
	}
	return faults
}

// PruneOptions say what Prune removes.
type PruneOptions struct {
	// Flow bounds it to one flow. Default: all.
	Flow string
	// Keep overrides what Config.Retention says. Default: that; 0 there, too, removes nothing.
	Keep time.Duration
	// Rehearse says what would be removed, and removes nothing.
	Rehearse bool
}

// Pruned is one execution that was removed, or would be.
type Pruned struct {
	Execution string    `json:"execution"`
	Flow      string    `json:"flow"`
	State     State     `json:"state"`
	Ended     time.Time `json:"ended"`
}

// Prune removes executions that ended longer ago than they are kept, oldest first, in small batches, with their logs, and yields each once it is
// gone. One that is open is never removed, nor a sub-flow of one that is open, nor a sub-flow of that: it may have to be
// undone. It ends after the last, when ctx ends, or after yielding an error.
func (e *Engine) Prune(ctx context.Context, o PruneOptions) iter.Seq2[Pruned, error] {
	return func(yield func(Pruned, error) bool) {
		fail := func(err error) { yield(Pruned{}, fmt.Errorf("flow: prune: %w", err)) }
		if o.Keep < 0 {
			fail(fmt.Errorf("%w: PruneOptions.Keep is %s: want a positive duration", ErrInvalid, o.Keep))
			return
		}
		names := []string{o.Flow}
		if o.Flow == "" {
			definitions, err := e.config.Store.Definitions(ctx)
			if err != nil {
				fail(err)
				return
			}
			names = names[:0]
			for _, d := range definitions {
				names = append(names, d.Name)
			}
		}
		for _, name := range names {
			keep := o.Keep
			if keep == 0 {
				keep = e.config.Retention.of(name)
			}
			if keep == 0 {
				continue
			}
			for pruned, err := range e.pruneFlow(ctx, name, now().Add(-keep), o.Rehearse) {
				if err != nil {
					fail(err)
					return
				}
				if !yield(pruned, nil) {
					return
				}
			}
		}
	}
}

// pruneFlow removes what of one flow ended before a time.
func (e *Engine) pruneFlow(ctx context.Context, name string, before time.Time, rehearse bool) iter.Seq2[Pruned, error] {
	return func(yield func(Pruned, error) bool) {
		needed := map[string]bool{}
		after := ""
		for {
			rows, err := e.config.Store.List(ctx, Filter{Flow: name, EndedBefore: before, Oldest: true, After: after, Limit: pruneBatch})
			if err != nil {
				yield(Pruned{}, err)
				return
			}
			if len(rows) == 0 {
				return
			}
			after = rows[len(rows)-1].ID
			rows, err = e.removable(ctx, rows, needed)
			if err == nil && !rehearse {
				err = e.removeRows(ctx, rows)
			}
			if err != nil {
				yield(Pruned{}, err)
				return
			}
			for _, row := range rows {
				if !yield(Pruned{row.ID, row.Flow, row.State, row.Ended}, nil) {
					return
				}
			}
		}
	}
}

// removable leaves out sub-flows that an open execution may have to undo.
func (e *Engine) removable(ctx context.Context, rows []Row, needed map[string]bool) ([]Row, error) {
	var out []Row
	for _, row := range rows {
		open, err := e.ancestorOpen(ctx, row.Parent, needed)
		if err != nil {
			return nil, err
		}
		if !open {
			out = append(out, row)
		}
	}
	return out, nil
}

// ancestorOpen reports whether an execution, or one that it is a sub-flow of, is open. known holds what was found.
func (e *Engine) ancestorOpen(ctx context.Context, id string, known map[string]bool) (bool, error) {
	if id == "" {
		return false, nil
	}
	if open, found := known[id]; found {
		return open, nil
	}
	row, err := e.config.Store.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil // removed, and so had ended
	}
	if err != nil {
		return false, err
	}
	open := !row.State.Ended()
	if !open {
		if open, err = e.ancestorOpen(ctx, row.Parent, known); err != nil {
			return false, err
		}
	}
	known[id] = open
	return open, nil
}

// removeRows removes logs first: a crash in between leaves an execution without its logs, never logs of which nobody knows.
func (e *Engine) removeRows(ctx context.Context, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
		if err := e.logs.remove(row.ID); err != nil {
			return err
		}
	}
	n, err := e.config.Store.Remove(ctx, ids)
	e.metrics.pruned(n)
	return err
}

// retain prunes until ctx ends.
func (e *Engine) retain(ctx context.Context) {
	every := e.config.Retention.Every
	if every == 0 {
		every = 10 * time.Minute
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		removed := 0
		for _, err := range e.Prune(ctx, PruneOptions{}) {
			if err != nil && ctx.Err() == nil {
				e.log.Warn("executions could not be removed, will be tried again", "error", err, "after", every)
			}
			if err == nil {
				removed++
			}
		}
		if removed > 0 {
			e.log.Info("executions removed that ended longer ago than they are kept", "count", removed)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
