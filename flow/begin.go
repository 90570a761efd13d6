package flow

import (
	"fmt"
)

// An attempt begins with leave of the gate. One that has to wait is queued, which is stored: its execution shows what for and since when,
// and since its start is not stored, a crash meanwhile leaves nothing in doubt.

// keyChange is a key that a transition takes or frees. Its holder is an execution, or for an exclusive key a task.
type keyChange struct{ key, holder string }

// begin starts an attempt, or queues it. e is its start as it is to be stored.
func (m *machine) begin(s *StepStatus, plan *stepPlan, item int, e Event) {
	e.Kind, e.Hidden = EventAttemptStarted, plan.hands(e.Input)
	if m.x.Paused && m.planted != "start while paused" { // it was cut off, and is to be made again: not before somebody resumes
		e.Kind, e.Text = EventAttemptQueued, "waits until the execution is resumed"
		m.emit(e)
		return
	}
	grant, waits := m.admit(s, plan, item, &e)
	if waits != "" {
		e.Kind, e.Text = EventAttemptQueued, waits
		m.emit(e)
		s.Tasks[item].asked = true
		return
	}
	m.emit(e)
	m.runWith(s, plan, item, grant)
}

// admit asks for leave.
func (m *machine) admit(s *StepStatus, plan *stepPlan, item int, e *Event) (*ticket, string) {
	if m.gate == nil {
		return nil, ""
	}
	q := request{step: s.Name, item: item, tool: plan.Tool, device: e.Device, exclusive: e.Lock, local: e.Device == "" && plan.Flow == "", nested: plan.Flow != ""}
	if item < len(s.Tasks) {
		if t := &s.Tasks[item]; t.locked {
			q.exclusive = ""
		} else if e.Lock == "" {
			q.exclusive = t.Lock
		}
	}
	return m.gate.admit(q)
}

// runWith has the shell run the task's current attempt, and give the leave back at its end.
func (m *machine) runWith(s *StepStatus, plan *stepPlan, item int, grant *ticket) {
	m.run(s, plan, item, false)
	m.actions[len(m.actions)-1].grant = grant
}

// admitted takes in that a queued attempt may start. Leave that nobody wants any more is given back.
func (m *machine) admitted(in input) {
	at := m.x.stepIndex(in.step)
	t := m.x.task(at, in.item)
	if t != nil {
		t.asked = false
	}
	if t == nil || t.State != TaskQueued || m.x.Paused || m.hold || m.x.Target != "" {
		m.actions = append(m.actions, action{kind: actUnused, grant: in.grant})
		return
	}
	s, plan := &m.x.Steps[at], m.p.steps[at]
	m.emit(m.queuedStart(s, t))
	m.runWith(s, plan, t.Item, in.grant)
}

func (m *machine) queuedStart(s *StepStatus, t *Task) Event {
	return Event{Kind: EventAttemptStarted, Step: s.Name, Item: t.Item, Attempt: t.Attempt + 1, Again: t.again, Device: t.Device, Actor: t.by}
}

// requeue has every queued attempt ask again that no longer does.
func (m *machine) requeue() {
	if m.x.queued == 0 || m.x.Target != "" {
		return
	}
	for i := range m.x.Steps {
		s, plan := &m.x.Steps[i], m.p.steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			if t.State != TaskQueued || t.asked {
				continue
			}
			e := m.queuedStart(s, t)
			grant, waits := m.admit(s, plan, j, &e)
			if t.asked = waits != ""; t.asked {
				continue
			}
			m.emit(e)
			m.runWith(s, plan, j, grant)
		}
	}
}

// locked reports whether the execution has its flow's locks, and asks for them if it has not.
func (m *machine) locked() bool {
	x := m.x
	if len(m.p.locks) == 0 || x.locked {
		return true
	}
	keys := make([]string, len(m.p.locks))
	for i, lock := range m.p.locks {
		value, err := lock.eval(x.vars)
		text, isText := value.(string)
		if err == nil && (!isText || text == "") {
			err = fmt.Errorf("%q is %s, want a text that is not empty", m.p.Locks[i], describe(value))
		}
		if err != nil {
			m.abandon(Failed, failure(CodeExpression, "locks: %v", err), input{})
			return false
		}
		keys[i] = text
	}
	if m.gate != nil {
		waits, refused := m.gate.lock(keys)
		switch {
		case refused:
			m.abandon(Failed, &Error{Code: CodeLocked, Message: "it " + waits + ", and may not wait: what calls it holds locks that sort after that; name those that both need in the calling flow"}, input{})
			return false
		case waits != "":
			if x.awaits == "" {
				m.emit(Event{Kind: EventLockWaiting, Keys: keys, Text: waits})
			}
			return false
		}
	}
	m.emit(Event{Kind: EventLocked, Keys: keys})
	return true
}

// applyLocks folds what is said about an execution's own locks.
func (x *Execution) applyLocks(e *Event) {
	switch e.Kind {
	case EventLockWaiting:
		x.awaits = e.Text
	case EventLocked:
		x.Locks, x.locked, x.awaits = e.Keys, true, ""
		for _, key := range e.Keys {
			x.taken = append(x.taken, keyChange{key, x.holder()})
		}
	case EventDone, EventFailed, EventCancelled:
		x.awaits = ""
		for _, key := range e.Keys {
			x.freed = append(x.freed, keyChange{key, x.ID})
		}
		if len(e.Keys) > 0 {
			x.Locks = nil
		}
	}
}

// holder is who holds the locks of the execution: the one that was started first, if it is a sub-flow.
func (x *Execution) holder() string {
	if x.root != "" {
		return x.root
	}
	return x.ID
}

// applyTaskLock folds what becomes of a task's exclusive key.
func (x *Execution) applyTaskLock(s *StepStatus, t *Task, e *Event) {
	if e.Lock != "" {
		t.Lock = e.Lock
	}
	if t.Lock == "" {
		return
	}
	change := keyChange{exclusivePrefix + t.Lock, taskName(x.ID, s.Name, t.Item)}
	switch {
	case e.Kind == EventAttemptStarted && !t.locked:
		t.locked = true
		x.taken = append(x.taken, change)
	case t.locked && !open(t.State):
		t.locked = false
		x.freed = append(x.freed, change)
	}
}

// waitsFor says what the execution waits for that the engine will give it.
func (x *Execution) waitsFor() string {
	if x.awaits != "" {
		return x.awaits
	}
	return x.queuedFor
}
