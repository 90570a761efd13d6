package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// subflowUndo is the undo of a sub-flow step: the flow that it ran is compensated.
const subflowUndo = "flow.compensate"

// abandon turns the execution back: nothing new starts, what runs is stopped, then everything is undone in reverse.
func (m *machine) abandon(target State, err *Error, by input) {
	m.turn(Event{Kind: EventCompensating, Target: target, Error: err, Actor: by.actor, Reason: by.reason})
}

// turn turns the execution back with an event that says how far.
func (m *machine) turn(e Event) {
	m.emit(e)
	for i := m.x.floor; i <= m.x.last; i++ {
		s := &m.x.Steps[i]
		if s.active == 0 {
			continue
		}
		m.giveUp(s)
		for j := range s.Tasks {
			if t := &s.Tasks[j]; t.inFlight() {
				m.stop(s, t)
			}
		}
	}
}

// stop stops what runs of a task: its attempt, or the probe that is asked about it.
func (m *machine) stop(s *StepStatus, t *Task) {
	kind := ""
	if t.State == TaskDoubt {
		kind = t.probeKind()
	}
	m.actions = append(m.actions, action{kind: actStop, call: m.call(s, t.Item, t.Attempt, kind)})
}

// compensate undoes in reverse, down to the step to which the execution returns, or everything; it reports whether there is more to do at once.
func (m *machine) compensate() bool {
	x := m.x
	for ; x.undoing >= x.floor; x.undoing-- {
		s, plan := &x.Steps[x.undoing], m.p.steps[x.undoing]
		if s.active > 0 && m.planted != "undo what runs" {
			return false
		}
		if plan.undoTool == "" || plan.Notify != nil {
			continue
		}
		for s.undo > 0 && s.undos < plan.Parallel {
			t := &s.Tasks[s.undo-1]
			s.undo--
			if m.planted == "skip an undo" && t.Item == 0 && x.undoing == 0 || m.planted == "undo the last iteration" && plan.Repeat != nil && t.Item < len(s.Tasks)-1 {
				continue
			}
			// An attempt that failed may have left something behind, too: undo tools succeed when there is nothing to do.
			if t.Attempt > 0 && t.Undo == nil {
				m.startUndo(s, plan, t, Event{})
			}
		}
		if s.undos > 0 || s.undo > 0 {
			return false
		}
	}
	if x.Target == Running {
		m.emit(Event{Kind: EventReturned, Step: x.Steps[x.floor].Name})
		m.rearm()
		m.survey(0)
	} else {
		m.finish(x.Target)
	}
	return true
}

// startUndo starts an attempt to undo a task.
func (m *machine) startUndo(s *StepStatus, plan *stepPlan, t *Task, by Event) {
	attempt := 1
	if t.Undo != nil {
		attempt = t.Undo.Attempt + 1
	}
	m.emit(Event{
		Kind: EventUndoStarted, Step: s.Name, Item: t.Item, Attempt: attempt, Again: by.Again, Tool: plan.undoTool,
		Device: m.undoDevice(plan, t), Actor: by.Actor, Reason: by.Reason,
	})
	m.runUndo(s, plan, t, false)
}

func (m *machine) undoDevice(plan *stepPlan, t *Task) string {
	if plan.undoOn {
		return t.Device
	}
	return ""
}

func (m *machine) runUndo(s *StepStatus, plan *stepPlan, t *Task, attach bool) {
	call := m.call(s, t.Item, t.Undo.Attempt, "u")
	call.Tool, call.Undo, call.Timeout = plan.undoTool, true, time.Duration(plan.Timeout)
	call.Device = m.undoDevice(plan, t)
	resolved, err := m.undoInput(s, plan, t)
	if err != nil {
		m.emit(Event{Kind: EventUndoHeld, Step: s.Name, Item: t.Item, Attempt: t.Undo.Attempt, Error: failure(CodeExpression, "undo: %v", err)})
		return
	}
	call.Input = resolved
	m.actions = append(m.actions, action{kind: actRun, call: call, remote: call.Device != "", attach: attach, flow: plan.undoTool == subflowUndo, lock: t.Lock})
}

// undoInput is the step's own input, or what the definition says instead, with the step's output as "done".
func (m *machine) undoInput(s *StepStatus, plan *stepPlan, t *Task) (json.RawMessage, error) {
	object := map[string]any{}
	if plan.undoWith != nil {
		vars, err := m.undoVars(s, plan, t)
		if err != nil {
			return nil, err
		}
		value, err := plan.undoWith.eval(vars)
		if err != nil {
			return nil, err
		}
		object, _ = value.(map[string]any)
	} else {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(t.Input, &fields); err != nil {
			return nil, fmt.Errorf("read the step's input: %w", err)
		}
		for name, value := range fields {
			object[name] = value
		}
	}
	if t.State == TaskDone && len(t.Output) > 0 {
		object["done"] = t.Output
	}
	return json.Marshal(object)
}

// undoVars are the variables of undo.with. The step's own output is what the task that is undone has left: of an iteration its own, of an item the list as far
// as the step has come, whether the step has ended or not; none if the task has none.
func (m *machine) undoVars(s *StepStatus, plan *stepPlan, t *Task) (map[string]any, error) {
	vars, err := m.itemVars(s, plan, t.Item)
	if err != nil {
		return nil, err
	}
	if plan.Repeat != nil {
		vars = maps.Clone(vars)
		vars["index"] = int64(t.Item)
	}
	if !slices.Contains(plan.uses, s.at) || s.State == StepDone && plan.Repeat == nil {
		return vars, nil
	}
	all, _ := vars["steps"].(map[string]any)
	all = maps.Clone(all)
	delete(all, s.Name)
	vars = maps.Clone(vars)
	vars["steps"] = all
	if t.State != TaskDone {
		return vars, nil
	}
	all[s.Name], err = m.left(s, plan, t)
	return vars, err
}

// left is what a step that has not ended has left behind for the undo of one of its tasks.
func (m *machine) left(s *StepStatus, plan *stepPlan, t *Task) (any, error) {
	if s.left != nil {
		return s.left, nil
	}
	output := t.Output
	var err error
	switch {
	case s.Fanned && plan.mapped == nil:
		output = s.output()
	case s.Fanned:
		output, err = m.mapOutputs(s, plan)
	case plan.mapped != nil:
		output, err = m.mapOutput(s, plan, t, output)
	}
	if err != nil {
		return nil, err
	}
	value, err := expr.Decode(output, m.outputSchema(s, plan))
	if s.Fanned {
		s.left = value // nothing of it runs any more: it is the same for all items
	}
	return value, err
}

// undoEnded takes in the end of an attempt to undo.
func (m *machine) undoEnded(s *StepStatus, plan *stepPlan, t *Task, in input) {
	err := in.result.Error
	e := Event{Step: s.Name, Item: t.Item, Attempt: t.Undo.Attempt, Logs: in.result.Logs, Ran: in.result.Ran, Error: err}
	switch {
	case err == nil:
		e.Kind = EventUndoDone
	case plan.undo.Retry.again(err) && t.Undo.Tries < plan.undo.Retry.Attempts:
		e.Kind, e.RetryAt = EventUndoFailed, m.now.Add(plan.undo.Retry.delay(t.Undo.Tries))
	case plan.undo.OnFailure == Skip:
		e.Kind = EventUndoSkipped
	default:
		e.Kind = EventUndoHeld
	}
	m.emit(e)
	if !e.RetryAt.IsZero() {
		m.timer(s, t.Item, true, e.RetryAt)
	}
}

// retryHeld tries everything again that waits for a person.
func (m *machine) retryHeld(in input) {
	switch {
	case m.x.held == 0:
		return
	case m.x.Paused && m.planted != "start while paused":
		m.refusePaused()
		return
	}
	m.emit(Event{Kind: EventRetried, Actor: in.actor, Reason: in.reason})
	by := Event{Actor: in.actor, Reason: in.reason, Again: true}
	for i := range m.x.Steps {
		s, plan := &m.x.Steps[i], m.p.steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			if t.Undo != nil && t.Undo.State == TaskHeld {
				m.startUndo(s, plan, t, by)
			} else if t.State == TaskHeld {
				m.again(s, plan, t, by)
			}
		}
	}
}

// settle takes a person's word for how a held task ended.
func (m *machine) settle(in input) {
	at := m.x.stepIndex(in.step)
	if at < 0 {
		m.noStep(in.step)
		return
	}
	t := m.x.task(at, in.item)
	if t == nil || t.State != TaskHeld && (t.Undo == nil || t.Undo.State != TaskHeld) {
		m.refuse("step %q item %d of execution %s does not wait for a person", in.step, in.item, m.x.ID)
		return
	}
	s := &m.x.Steps[at]
	if plan := m.p.steps[at]; in.done && t.State == TaskHeld {
		switch {
		case plan.holds():
			m.refuse("step %q holds others; choose the way that it goes, or skip it", s.Name)
			return
		case len(in.result.Output) > 0 && !s.unopened() && validate(plan.returns, in.result.Output) != nil:
			m.invalid("the output given for step %q: %v", s.Name, validate(plan.returns, in.result.Output))
			return
		case plan.mapped != nil && !s.unopened():
			output := in.result.Output
			if len(output) == 0 {
				output = json.RawMessage("{}")
			}
			if _, err := m.mapOutput(s, plan, t, output); err != nil {
				m.invalid("the output given for step %q: %v", s.Name, err)
				return
			}
		}
	}
	said := Event{Kind: EventSettled, Step: s.Name, Item: t.Item, Actor: in.actor, Reason: in.reason}
	switch {
	case t.Undo != nil && t.Undo.State == TaskHeld:
		m.emit(said)
		e := Event{Kind: EventUndoDone, Step: s.Name, Item: t.Item, Attempt: t.Undo.Attempt}
		if !in.done {
			e.Kind, e.Error = EventUndoSkipped, t.Undo.Error
		}
		m.emit(e)
	case t.State == TaskHeld:
		m.emit(said)
		e := Event{Kind: EventAttemptDone, Step: s.Name, Item: t.Item, Attempt: t.Attempt, Output: in.result.Output}
		if !in.done {
			e.Kind, e.Output, e.Error = EventAttemptFailed, nil, t.Error
		} else if len(e.Output) == 0 {
			e.Output = json.RawMessage("{}")
		}
		m.emit(e)
	}
}
