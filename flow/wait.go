package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// Steps that wait have one task, which is parked until its time comes, a signal is there, or people have decided. A signal that nobody waits for is kept.

// waitFor is what parks a step.
type waitFor uint8

const (
	waitNothing waitFor = iota
	waitTime
	waitSignal
	waitPeople
)

// waits returns what such a step waits for.
func (k kind) waits() waitFor {
	switch k {
	case kindSleep, kindWindow:
		return waitTime
	case kindSignal:
		return waitSignal
	case kindApprove:
		return waitPeople
	}
	return waitNothing
}

// heardSignal is a signal that no step has taken.
type heardSignal struct {
	ID      string
	From    string
	Payload json.RawMessage
}

// parked are the steps that wait for one kind of thing. One that leaves is replaced by the last, so both cost the same however many there are.
type parked []int

func (p *parked) add(s *StepStatus) {
	*p = append(*p, s.at)
	s.parked = len(*p)
}

func (p *parked) remove(s *StepStatus, steps []StepStatus) {
	if s.parked == 0 {
		return
	}
	list := *p
	last := list[len(list)-1]
	list[s.parked-1], steps[last].parked = last, s.parked
	*p, s.parked = list[:len(list)-1], 0
}

// park begins to wait, unless what is to be waited for is there.
func (m *machine) park(s *StepStatus, plan *stepPlan, by Event) {
	e := Event{Kind: EventStepParked, Step: s.Name, Actor: by.Actor, Reason: by.Reason}
	var err error
	switch vars := m.vars(plan); plan.kind() {
	case kindSleep:
		var value any
		var wait time.Duration
		if value, err = plan.sleep.eval(vars); err == nil {
			wait, err = sleepTime(value)
		}
		e.Text, e.RetryAt = "sleep "+wait.String(), m.now.Add(wait)
	case kindWindow:
		e.Text, e.RetryAt = "window "+plan.window.text, plan.window.opens(m.now)
	case kindSignal:
		var value any
		value, err = plan.signal.eval(vars)
		e.Signal, _ = value.(string)
		e.Text = "signal " + e.Signal
		if err == nil && e.Signal == "" {
			err = fmt.Errorf("%q is %s, want a signal's name", plan.Signal, describe(value))
		}
	case kindApprove:
		var value any
		value, err = plan.question.eval(vars)
		e.Text = expr.Text(value)
	}
	if err != nil {
		m.lapse(s, plan, failure(CodeExpression, "%s: %v", plan.kind(), err), by)
		m.ready = append(m.ready, plan.block)
		return
	}
	if plan.Timeout > 0 && e.RetryAt.IsZero() {
		e.RetryAt = m.now.Add(time.Duration(plan.Timeout))
	}
	m.emit(e)
	if plan.kind() == kindApprove {
		m.notice("approve", "warning", fmt.Sprintf("flow %s asks at step %s: %s", m.x.Flow, s.Name, e.Text))
	}
	switch {
	case m.awaited(s, plan):
		m.ready = append(m.ready, plan.block)
	case !e.RetryAt.IsZero():
		m.timer(s, 0, false, e.RetryAt)
	}
}

// awaited ends the task of a parked step if what it waits for is there; it reports whether it is.
func (m *machine) awaited(s *StepStatus, plan *stepPlan) bool {
	t := m.x.task(s.at, 0)
	if t == nil || t.State != TaskParked {
		return false
	}
	e := Event{Kind: EventAttemptDone, Step: s.Name}
	switch plan.kind() {
	case kindSignal:
		kept := m.x.kept[t.Signal]
		if len(kept) == 0 {
			return false
		}
		first := kept[0]
		e.Signal = t.Signal
		e.Output = mustJSON(map[string]any{"payload": first.Payload, "id": first.ID, "from": first.From})
	case kindApprove:
		if len(s.Approvals) < max(plan.Approve.Count, 1) {
			return false
		}
		by := make([]string, len(s.Approvals))
		comment := ""
		for i, a := range s.Approvals {
			by[i] = a.By
			if a.Comment != "" {
				comment = a.Comment
			}
		}
		e.Output = mustJSON(map[string]any{"approved": true, "by": by, "comment": comment})
	case kindWindow:
		if !plan.window.inside(m.now) {
			return false
		}
	default:
		return false
	}
	m.emit(e)
	return true
}

// waited takes in that a parked step's time has come: the end of a sleep, the opening of a window, or the end of the patience for anything else.
func (m *machine) waited(s *StepStatus, plan *stepPlan, t *Task) {
	switch plan.kind() {
	case kindSleep:
		m.emit(Event{Kind: EventAttemptDone, Step: s.Name})
	case kindWindow:
		if !m.awaited(s, plan) { // the execution was held up for so long that it has closed again
			m.park(s, plan, Event{})
		}
	default:
		m.lapse(s, plan, &Error{Code: CodeTimeout, Message: fmt.Sprintf("%s: nothing came within %s", t.For, plan.Timeout), Permanent: true}, Event{})
	}
}

// lapse ends the task of a parked step without what it waited for.
func (m *machine) lapse(s *StepStatus, plan *stepPlan, err *Error, by Event) {
	m.failTask(s, plan, Event{Step: s.Name, Error: err, Actor: by.Actor, Reason: by.Reason})
}

// maxSignals bounds the signals that an execution keeps.
const maxSignals = 1000

// signal takes a signal in. One whose ID is known has come before and changes nothing.
func (m *machine) signal(in input) {
	x := m.x
	if in.id != "" && x.heard[in.id] {
		if m.planted != "take signals twice" {
			return
		}
	}
	kept := 0
	for _, list := range x.kept {
		kept += len(list)
	}
	if kept >= maxSignals {
		m.refuse("execution %s keeps %d signals that no step has taken; it takes no more", x.ID, kept)
		return
	}
	m.emit(Event{Kind: EventSignalled, Signal: in.name, ID: in.id, Output: in.result.Output, Actor: in.actor})
	if first := x.listener(in.name); first >= 0 {
		m.ready = append(m.ready, m.p.steps[first].block)
	}
}

// asked returns the step at which people are asked, if the person may answer; else it refuses.
func (m *machine) asked(in input) (*StepStatus, *stepPlan) {
	s, plan := m.here(in)
	if s == nil {
		return nil, nil
	}
	if t := m.x.task(s.at, 0); plan.Approve == nil || t == nil || t.State != TaskParked {
		m.refuse("step %q asks nobody to approve", in.step)
		return nil, nil
	}
	by := plan.Approve.By
	may := len(by) == 0 || slices.Contains(by, in.actor)
	for _, role := range in.roles {
		may = may || slices.Contains(by, "role:"+role)
	}
	if !may {
		m.refused = fmt.Errorf("%w: step %q asks %v, and %q is none of them", ErrNotAsked, in.step, by, in.actor)
		return nil, nil
	}
	return s, plan
}

// approve notes that a person approves. Who has approved before changes nothing.
func (m *machine) approve(in input) {
	s, _ := m.asked(in)
	if s == nil || slices.ContainsFunc(s.Approvals, func(a Approval) bool { return a.By == in.actor }) {
		return
	}
	m.unpark(in)
	m.emit(Event{Kind: EventApproved, Step: s.Name, Actor: in.actor, Reason: in.reason})
}

// disapprove notes that a person refuses: that is a failure of the step.
func (m *machine) disapprove(in input) {
	s, plan := m.asked(in)
	if s == nil {
		return
	}
	m.unpark(in)
	m.emit(Event{Kind: EventRefused, Step: s.Name, Actor: in.actor, Reason: in.reason})
	m.lapse(s, plan, &Error{Code: CodeRefused, Message: "refused by " + in.actor + reasonText(in.reason), Permanent: true}, Event{Actor: in.actor, Reason: in.reason})
}

// waitingFor says what an execution waits for that only waits.
func (x *Execution) waitingFor(kind waitFor) string {
	list := x.parked[kind]
	s := &x.Steps[list[0]]
	text := "step " + s.Name + ": " + s.Tasks[0].For
	if kind == waitSignal {
		text = s.Tasks[0].Signal
	}
	if more := len(list) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}
