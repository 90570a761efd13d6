package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// failing reports whether so much of a step has failed that it has.
func (p *stepPlan) failing(s *StepStatus) bool {
	return s.failed > 0 && p.OnFailure != Skip && s.failed > p.spare(s)
}

// spare is how many items may fail.
func (p *stepPlan) spare(s *StepStatus) int {
	if p.Quota == "" {
		return 0
	}
	return p.quota.allows(len(s.Tasks))
}

// room reports whether the next item of a step may start: not more than so many side by side, and none of a batch before that of the last has ended.
func (p *stepPlan) room(s *StepStatus) bool {
	return s.active < p.Parallel && (p.Batch == 0 || s.active == 0 || s.next%p.Batch != 0)
}

// again reports whether an error is one of those that are tried again.
func (r *Retry) again(err *Error) bool {
	return err == nil || !err.Permanent && (len(r.On) == 0 || slices.Contains(r.On, err.Code))
}

// iterate works on a step that is repeated; it reports whether the step ended.
func (m *machine) iterate(s *StepStatus, plan *stepPlan) bool {
	if len(s.Tasks) == 0 {
		m.startTask(s, plan, 0)
	}
	for s.active == 0 {
		t := &s.Tasks[len(s.Tasks)-1]
		switch {
		case t.State == TaskWaiting:
			m.startTask(s, plan, t.Item)
			continue
		case t.State != TaskDone:
			return m.failStep(s, plan, s.lastErr)
		}
		enough, err := m.enough(plan, t)
		switch {
		case err != nil:
			return m.failStep(s, plan, failure(CodeExpression, "repeat: %v", err))
		case enough:
			return m.endStep(s, plan)
		case len(s.Tasks) >= plan.Repeat.Max:
			spent := failure(CodeRepeat, "%d iterations, and %q does not hold", len(s.Tasks), plan.Repeat.Until)
			if plan.OnFailure != Pause {
				return m.failStep(s, plan, spent)
			}
			// A person who has it tried again grants another iteration.
			m.emit(Event{Kind: EventStepRepeating, Step: s.Name, Item: t.Item + 1})
			m.emit(Event{Kind: EventAttemptHeld, Step: s.Name, Item: t.Item + 1, Error: spent})
			return false
		}
		next := Event{Kind: EventStepRepeating, Step: s.Name, Item: len(s.Tasks)}
		if plan.Repeat.Every > 0 {
			next.RetryAt = m.now.Add(time.Duration(plan.Repeat.Every))
		}
		m.emit(next)
		if plan.Repeat.Every > 0 {
			m.timer(s, next.Item, false, next.RetryAt)
		}
	}
	return false
}

// enough looks at the outcome of an iteration.
func (m *machine) enough(plan *stepPlan, t *Task) (bool, error) {
	output, err := expr.Decode(t.Output, plan.returned)
	if err != nil {
		return false, err
	}
	vars := maps.Clone(m.vars(plan))
	vars["output"], vars["index"] = output, int64(t.Item)
	value, err := plan.until.Eval(vars)
	if err != nil {
		return false, err
	}
	enough, isBool := value.(bool)
	if !isBool {
		return false, fmt.Errorf("until: %q is %s, want a bool", plan.Repeat.Until, describe(value))
	}
	return enough, nil
}

// endStep ends a step that has done what it had to.
func (m *machine) endStep(s *StepStatus, plan *stepPlan) bool {
	e := Event{Kind: EventStepDone, Step: s.Name}
	if s.failed > 0 {
		e.Reason = fmt.Sprintf("%d of %d items failed, which its quota allows", s.failed, len(s.Tasks))
		if plan.OnFailure == Skip {
			e.Reason = fmt.Sprintf("%d of %d items failed, and the flow goes on without them", s.failed, len(s.Tasks))
		}
	}
	if plan.mapped != nil {
		var err error
		if e.Output, err = m.mapOutputs(s, plan); err != nil {
			return m.failStep(s, plan, failure(CodeExpression, "output: %v", err))
		}
	}
	m.emit(e)
	return true
}

// mapOutputs makes the step's output of what it returned.
func (m *machine) mapOutputs(s *StepStatus, plan *stepPlan) (json.RawMessage, error) {
	if !s.Fanned {
		return m.mapOutput(s, plan, &s.Tasks[len(s.Tasks)-1], s.Tasks[len(s.Tasks)-1].Output)
	}
	out := []byte(`{"items":[`)
	for i := range s.Tasks {
		if i > 0 {
			out = append(out, ',')
		}
		if s.Tasks[i].State != TaskDone {
			out = append(out, "null"...)
			continue
		}
		mapped, err := m.mapOutput(s, plan, &s.Tasks[i], s.Tasks[i].Output)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		out = append(out, mapped...)
	}
	return append(out, "]}"...), nil
}

func (m *machine) mapOutput(s *StepStatus, plan *stepPlan, t *Task, returned json.RawMessage) (json.RawMessage, error) {
	output, err := expr.Decode(returned, plan.returned)
	if err != nil {
		return nil, err
	}
	vars, err := m.itemVars(s, plan, t.Item)
	if err != nil {
		return nil, err
	}
	vars = maps.Clone(vars)
	vars["output"] = output
	value, err := plan.mapped.eval(vars)
	if err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

// result is what the execution returns.
func (m *machine) result() (json.RawMessage, error) {
	if m.p.result == nil {
		return nil, nil
	}
	all := stepPlan{handles: -1}
	for i := range m.x.Steps {
		if m.x.Steps[i].State == StepDone {
			all.uses = append(all.uses, i)
		}
	}
	value, err := m.p.result.eval(m.vars(&all))
	if err != nil {
		return nil, err
	}
	return json.Marshal(value)
}
