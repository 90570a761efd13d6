package flow

import (
	"context"
	"fmt"
)

// Violation is something in a store that cannot be.
type Violation struct {
	Execution string `json:"execution"`
	Message   string `json:"message"`
}

func (v Violation) String() string { return v.Execution + ": " + v.Message }

// Check verifies a whole store: that every history is without gaps and folds to the row that stands for it, and that every
// open execution has exactly one source that wakes it, which fits its state, and that no lock is held by an execution that has ended. It reads only, and may run beside an
// engine; an execution that moves meanwhile is looked at again.
func Check(ctx context.Context, store Store) ([]Violation, error) {
	report, err := check(ctx, store, Filter{})
	return report.Violations, err
}

// CheckReport is what Engine.Check found.
type CheckReport struct {
	Executions int         `json:"executions"` // that were looked at
	Violations []Violation `json:"violations"`
}

// Check is the function Check on the engine's store, for the executions that the filter selects: Filter{Open: true} leaves those out that have
// ended, which are most. Locks are looked at whatever the filter says; its Limit, After and Oldest are not used.
func (e *Engine) Check(ctx context.Context, filter Filter) (CheckReport, error) {
	return check(ctx, e.config.Store, filter)
}

func check(ctx context.Context, store Store, filter Filter) (CheckReport, error) {
	definitions := map[versionKey]*Definition{}
	out := CheckReport{Violations: []Violation{}}
	filter.Limit, filter.After, filter.Oldest = 500, "", false
	for {
		rows, err := store.List(ctx, filter)
		if err != nil {
			return out, fmt.Errorf("flow: check: %w", err)
		}
		for _, row := range rows {
			found, err := checkRow(ctx, store, row, definitions)
			if err != nil {
				return out, fmt.Errorf("flow: check %s: %w", row.ID, err)
			}
			for _, message := range found {
				out.Violations = append(out.Violations, Violation{row.ID, message})
			}
			filter.After = row.ID
			out.Executions++
		}
		if len(rows) < filter.Limit {
			break
		}
	}
	stray, err := strayLocks(ctx, store)
	if err != nil {
		return out, fmt.Errorf("flow: check: %w", err)
	}
	out.Violations = append(out.Violations, stray...)
	return out, nil
}

// checkRow returns what is wrong with one execution.
func checkRow(ctx context.Context, store Store, row Row, definitions map[versionKey]*Definition) ([]string, error) {
	lookup := func(version int) (*Definition, error) {
		key := versionKey{row.Flow, version}
		if def := definitions[key]; def != nil {
			return def, nil
		}
		r, err := store.Definition(ctx, row.Flow, version)
		if err != nil {
			return nil, fmt.Errorf("its definition cannot be read: %w", err)
		}
		d := parseStored(r.Source)
		d.Version = r.Version
		definitions[key] = &d.Definition
		return &d.Definition, nil
	}
	for {
		records, err := store.History(ctx, row.ID, 0, 0)
		if err != nil {
			return nil, err
		}
		x, found := refold(lookup, row.ID, records)
		if len(found) > 0 {
			return found, nil
		}
		if x.Seq != row.Seq {
			// It may have moved on between the two reads.
			again, err := store.Get(ctx, row.ID)
			if err != nil {
				return nil, err
			}
			if again.Seq != row.Seq {
				row = again
				continue
			}
			return []string{fmt.Sprintf("its history ends at %d, its row at %d", x.Seq, row.Seq)}, nil
		}
		return x.violations(row), nil
	}
}

// refold replays a history.
func refold(lookup func(version int) (*Definition, error), id string, records []Record) (*Execution, []string) {
	var x *Execution
	var seq int64
	for _, record := range records {
		if record.Seq != seq+1 {
			return nil, []string{fmt.Sprintf("its history goes from event %d to %d", seq, record.Seq)}
		}
		events, err := DecodeEvents(id, record)
		if err != nil {
			return nil, []string{err.Error()}
		}
		for i := range events {
			if (seq == 0) != (events[i].Kind == EventStarted) {
				return nil, []string{fmt.Sprintf("event %d is %s", seq+1, events[i].Kind)}
			}
			if x == nil {
				def, err := lookup(events[i].Version)
				if err != nil {
					return nil, []string{err.Error()}
				}
				x = newExecution(def, id)
				x.lookup = lookup
			}
			x.apply(&events[i])
			seq = x.Seq
		}
	}
	switch {
	case x == nil:
		return nil, []string{"it has no history"}
	case x.broken != nil:
		return nil, []string{x.broken.Error()}
	}
	x.lookup = nil
	return x, nil
}

// ways returns how many of an if's or a switch's ways have begun.
func (x *Execution) ways(at int) (n int) {
	step := &x.shape.steps[at]
	if len(step.step.Branches) > 0 {
		return 0
	}
	for _, b := range step.blocks {
		if x.blocks[b].entered {
			n++
		}
	}
	return n
}

// violations compares what the history says with the row, and looks for what no history should say.
func (x *Execution) violations(row Row) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	want := x.row()
	if want.State != row.State || want.Paused != row.Paused || want.Step != row.Step || want.Error != row.Error {
		bad("its row says %s (paused %t) at step %q, its history %s (paused %t) at step %q", row.State, row.Paused, row.Step, want.State, want.Paused, want.Step)
	}
	if x.Version != row.Version {
		bad("its row says version %d, its history %d", row.Version, x.Version)
	}
	if want.Wake.Kind != row.Wake.Kind || !want.Wake.At.Equal(row.Wake.At) || want.Wake.For != row.Wake.For {
		bad("its row is woken by %+v, its history by %+v", row.Wake, want.Wake)
	}
	if x.State.Ended() != (row.Wake.Kind == WakeNone) {
		bad("it is %s and woken by %s", x.State, row.Wake.Kind)
	}
	if x.active < 0 || x.undos < 0 || x.timers < 0 || x.held < 0 {
		bad("its counters are negative: %d attempts, %d undos, %d timers, %d held", x.active, x.undos, x.timers, x.held)
	}
	if x.State.Ended() && x.active+x.undos+x.timers+x.held > 0 {
		bad("it is %s with %d attempts, %d undos, %d timers and %d held", x.State, x.active, x.undos, x.timers, x.held)
	}
	for i := range x.Steps {
		s := &x.Steps[i]
		if ways := x.ways(i); ways > 1 {
			bad("step %s goes %d ways", s.Name, ways)
		}
		if s.active < 0 || s.active > 0 && s.State != StepRunning && x.Target == "" {
			bad("step %s is %s, and %d of its tasks are under way", s.Name, s.State, s.active)
		}
		for j := range s.Tasks {
			t := &s.Tasks[j]
			if x.State == Done && open(t.State) {
				bad("it is done and step %s item %d is %s", s.Name, j, t.State)
			}
			if t.Undo != nil && x.Target == "" {
				bad("step %s item %d was undone, and the execution was not turned back", s.Name, j)
			}
		}
	}
	return out
}
