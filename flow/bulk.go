package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
)

// Bulk is one order to every open execution that a filter selects.
type Bulk struct {
	// Filter selects; at least one field of it besides Open must be set. What has ended is passed over whatever it says. Limit and
	// After are not used. For an order about one step, Filter.Step is that step unless it says otherwise.
	Filter Filter
	// Order is one of the Order constants.
	Order string
	// With is what each execution is told: who, why, and what the order needs.
	With Intervention
	// Signal is sent in place of an order, by With.Actor.
	Signal *BulkSignal
	// Max refuses the whole if more executions are selected: a filter that is wider than was thought does no harm. Default
	// DefaultBulk.
	Max int
	// Rehearse says what would be done, and does nothing.
	Rehearse bool
}

// BulkSignal is a signal to many executions.
type BulkSignal struct {
	Name    string
	Payload json.RawMessage
	// ID keeps a repetition from being another signal. Required.
	ID string
}

// BulkOutcome says what became of an order to one execution.
type BulkOutcome string

const (
	BulkDone      BulkOutcome = "done"
	BulkUnchanged BulkOutcome = "unchanged" // it stands there already, or where the order is not possible: Why says so
	BulkFailed    BulkOutcome = "failed"
)

// BulkLine is what became of an order to one execution.
type BulkLine struct {
	Execution string      `json:"execution"`
	Flow      string      `json:"flow"`
	Outcome   BulkOutcome `json:"outcome"`
	Why       string      `json:"why,omitempty"` // it is unchanged, or has failed
	Before    Standing    `json:"before"`
	After     Standing    `json:"after"`
	Of        int         `json:"of"` // how many were selected
}

// Standing is where an execution stands: what an order changes of it.
type Standing struct {
	Version int    `json:"version"`
	State   State  `json:"state"`
	Step    string `json:"step,omitempty"`
	Paused  bool   `json:"paused,omitempty"`
	Waiting string `json:"waiting,omitempty"` // what for
}

// Standing returns where an execution stands, secrets struck out, or ErrNotFound.
func (e *Engine) Standing(ctx context.Context, id string) (Standing, error) {
	row, err := e.config.Store.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		err = ErrNotFound // the store names the execution once more
	}
	if err != nil {
		return Standing{}, fmt.Errorf("flow: execution %s: %w", id, err)
	}
	return row.standing(), nil
}

func (r *Row) standing() Standing {
	return Standing{Version: r.Version, State: r.State, Step: r.Step, Paused: r.Paused, Waiting: r.Wake.For}
}

// input checks the bulk, and returns what each execution is told.
func (b *Bulk) input() (input, error) {
	var faults []error
	if !b.Filter.selective() {
		faults = append(faults, fmt.Errorf("%w: Bulk.Filter selects everything; say which flow, state, step, parameter or device", ErrInvalid))
	}
	if b.Max < 0 || b.Max > MaxBulk {
		faults = append(faults, fmt.Errorf("%w: Bulk.Max is %d: want 1 to %d, or 0 for %d", ErrInvalid, b.Max, MaxBulk, DefaultBulk))
	}
	if b.Signal != nil {
		in, err := signalInput(b.Signal.Name, b.Signal.Payload, []SignalOption{SignalID(b.Signal.ID), SignalFrom(b.With.Actor)})
		if b.Signal.ID == "" {
			err = errors.Join(err, fmt.Errorf("%w: Bulk.Signal.ID is empty: give one (--id), or what is repeated would be another signal", ErrInvalid))
		}
		return in, errors.Join(append(faults, err)...)
	}
	kind, known := orders[b.Order]
	if !known {
		faults = append(faults, fmt.Errorf("%w: there is no order %q", ErrInvalid, b.Order))
	}
	return b.With.input(kind), errors.Join(append(faults, b.With.check())...)
}

func (b *Bulk) name() string {
	if b.Signal != nil {
		return "signal"
	}
	return b.Order
}

// selective reports whether the filter leaves anything out but what has ended.
func (f *Filter) selective() bool {
	return f.Flow != "" || f.Version != 0 || len(f.States)+len(f.Wakes)+len(f.Params) > 0 || f.Step != "" || f.Actor != "" || f.Key != "" ||
		f.Parent != "" || f.Device != "" || f.Text != "" || !f.Since.IsZero() || !f.Until.IsZero()
}

// Bulk gives an order to every execution that the filter selects now, one after another, and yields a line as each is done. Where the order is
// not possible, or would change nothing, the line says unchanged: to repeat a bulk is harmless. It ends with ctx, or after
// yielding an error: ErrInvalid if more than Max are selected, and then nothing was done.
func (e *Engine) Bulk(ctx context.Context, b Bulk) iter.Seq2[BulkLine, error] {
	return func(yield func(BulkLine, error) bool) {
		in, err := b.input()
		var rows []Row
		if err == nil {
			rows, err = e.selected(ctx, b)
		}
		if err != nil {
			yield(BulkLine{}, fmt.Errorf("flow: %s in bulk: %w", b.name(), err))
			return
		}
		for i := range rows {
			if ctx.Err() != nil {
				yield(BulkLine{}, fmt.Errorf("flow: %s in bulk: stopped after %d of %d: %w", b.name(), i, len(rows), context.Cause(ctx)))
				return
			}
			line := e.give(ctx, in, b.Rehearse, &rows[i])
			line.Of = len(rows)
			if !yield(line, nil) {
				return
			}
		}
	}
}

// selected returns the rows that a bulk is about.
func (e *Engine) selected(ctx context.Context, b Bulk) ([]Row, error) {
	most := b.Max
	if most == 0 {
		most = DefaultBulk
	}
	f := b.Filter
	f.Open, f.After, f.Limit = true, "", most+1
	if f.Step == "" {
		f.Step = b.With.Step
	}
	if b.Order == OrderBack {
		f.Step = b.Filter.Step // where they are, not where they go
	}
	rows, err := e.config.Store.List(ctx, f)
	if err == nil && len(rows) > most {
		err = fmt.Errorf("%w: more than %d executions are selected; narrow the filter, or allow for more", ErrInvalid, most)
	}
	return rows, err
}

// give tells one execution.
func (e *Engine) give(ctx context.Context, in input, rehearse bool, row *Row) BulkLine {
	line := BulkLine{Execution: row.ID, Flow: row.Flow, Outcome: BulkDone, Before: row.standing(), After: row.standing()}
	if in.kind == inMigrate {
		if err := e.resolve(ctx, row.Flow, &in); err == nil && in.program.Version == row.Version {
			line.Outcome, line.Why = BulkUnchanged, "it is of that version already"
			return line
		}
	}
	after, events, err := e.rehearse(ctx, row.ID, in)
	switch {
	case err != nil:
	case len(events) == 0:
		line.Outcome, line.Why = BulkUnchanged, "it stands so already"
	default:
		line.After = after.standing()
		if !rehearse {
			err = e.tell(ctx, row.ID, in)
		}
	}
	if err != nil {
		line.Outcome, line.Why, line.After = BulkFailed, err.Error(), line.Before
		if (errors.Is(err, ErrState) || errors.Is(err, ErrNotFound)) && in.kind != inMigrate {
			line.Outcome = BulkUnchanged
		}
	}
	return line
}
