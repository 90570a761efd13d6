package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// inputKind is what happens to an execution from outside.
type inputKind uint8

const (
	inGo      inputKind = iota + 1 // the engine has room: start, or go on
	inRecover                      // an engine has loaded it from the store
	inEnded                        // an attempt, a probe or an undo has ended
	inDue                          // a retry's time has come
	inCancel
	inPause
	inResume
	inRetry  // a person: try what is held again
	inSettle // a person: this is how a held task ended
	inSkip   // a person: end the step, and go on
	inFail
	inRetryStep
	inBack // a person: go back to a step
)

// input is one thing that happens to an execution.
type input struct {
	kind    inputKind
	step    string
	item    int
	attempt int
	undo    bool
	probe   bool
	result  Result
	actor   string
	reason  string
	at      time.Time // inDue: the RetryAt that the timer was set for
	done    bool      // inSettle: it had its effect; inCancel: an execution that is done is turned back as well
}

// actionKind is what the shell has to do once a transition is durable.
type actionKind uint8

const (
	actRun   actionKind = iota + 1 // run an attempt; hand its end back as inEnded
	actStop                        // stop an attempt that runs; its end comes as inEnded all the same
	actTimer                       // hand in inDue at the time
)

// action is one thing for the shell to do.
type action struct {
	kind   actionKind
	call   Call
	remote bool
	attach bool // the attempt may be running or finished elsewhere already
	flow   bool // run the flow named by call.Tool
	at     time.Time

	secrets []string // of the shell: what logs must not show
}

// machine is one application of the pure step function
//
//	(program, execution, input, now) -> (execution, events, actions, notices)
//
// It reads no clock and does no I/O. The execution is changed in place, by folding the events that are returned: what is stored
// is therefore all there is to know.
type machine struct {
	p       *program
	x       *Execution
	now     time.Time
	events  []Event
	actions []action
	notices []Notice
	hold    bool   // the engine is stopping: take in what ends, start nothing
	refused error  // why the last input changes nothing; nil if it may
	planted string // a bug that a test plants
}

// step applies one input.
func (m *machine) step(in input) {
	m.refused = nil
	if m.x.State.Ended() && !(in.kind == inCancel && in.done && m.x.State == Done) {
		return
	}
	switch in.kind {
	case inGo:
	case inRecover:
		m.recover()
	case inEnded:
		m.ended(in)
	case inDue:
		m.due(in)
	case inCancel:
		if m.x.Target == "" || m.x.Target == Running {
			m.abandon(Cancelled, &Error{Code: CodeCancelled, Message: "cancelled by " + in.actor + reasonText(in.reason)}, in)
		}
	case inPause:
		if !m.x.Paused {
			m.emit(Event{Kind: EventPaused, Actor: in.actor, Reason: in.reason})
		}
	case inResume:
		if m.x.Paused {
			m.emit(Event{Kind: EventResumed, Actor: in.actor, Reason: in.reason})
			m.rearm()
		}
	case inRetry:
		m.retryHeld(in)
	case inSettle:
		m.settle(in)
	case inSkip:
		m.skip(in)
	case inFail:
		m.fail(in)
	case inRetryStep:
		m.retryStep(in)
	case inBack:
		m.back(in)
	}
	m.advance()
	m.park()
}

func reasonText(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// emit appends an event and folds it.
func (m *machine) emit(e Event) {
	e.At = m.now
	m.x.apply(&e)
	e.Execution, e.Seq = m.x.ID, m.x.Seq
	m.events = append(m.events, e)
}

// advance does whatever can be done now.
func (m *machine) advance() {
	for !m.x.State.Ended() && !m.x.Paused && !m.hold {
		switch {
		case m.x.Target != "":
			if !m.compensate() {
				return
			}
		case m.x.cursor == len(m.p.steps):
			m.finish(Done)
		default:
			if !m.forward(m.x.cursor) {
				return
			}
		}
	}
}

// finish ends the execution.
func (m *machine) finish(state State) {
	m.emit(Event{Kind: EventKind("execution." + string(state))})
	if state == Failed {
		m.notice("failed", "critical", fmt.Sprintf("flow %s failed and was compensated: %v", m.x.Flow, m.x.Error))
	}
}

// park says so when only a person can move the execution on.
func (m *machine) park() {
	x := m.x
	if x.State.Ended() || x.State == Stuck || x.held == 0 || x.active+x.undos+x.timers > 0 {
		return
	}
	what := m.heldReason()
	m.emit(Event{Kind: EventStuck, Reason: what})
	m.notice("stuck", "critical", fmt.Sprintf("flow %s waits for a person: %s", x.Flow, what))
}

// heldReason names the first task that waits for a person.
func (m *machine) heldReason() string {
	for i := range m.x.Steps {
		s := &m.x.Steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			what, err := "step "+s.Name, t.Error
			switch {
			case t.Undo != nil && t.Undo.State == TaskHeld:
				what, err = "the undo of step "+s.Name, t.Undo.Error
			case t.State != TaskHeld:
				continue
			}
			if s.Fanned {
				what += " item " + strconv.Itoa(j)
			}
			if err != nil {
				what += ": " + err.Error()
			}
			return what
		}
	}
	return ""
}

// forward works on step i; it reports whether the step ended (or the execution turned back), so that there is more to do.
func (m *machine) forward(i int) bool {
	s, plan := &m.x.Steps[i], m.p.steps[i]
	if s.Skipping {
		return m.skipped(s)
	}
	if s.State == StepWaiting {
		if ended := m.open(s, plan); ended {
			return true
		}
	}
	tasks := 1
	if s.Fanned {
		tasks = len(s.Tasks)
	}
	failing := func() bool { return s.failed > 0 && plan.OnFailure != Skip }
	for s.next < tasks && s.active < plan.Parallel && !failing() {
		m.startTask(s, plan, s.next)
	}
	if s.active > 0 || (s.next < tasks && !failing()) {
		return false
	}
	if failing() {
		m.failStep(s, s.lastErr)
		return true
	}
	if s.failed > 0 && !s.Fanned {
		m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "it failed, and the flow goes on without it", Error: s.lastErr})
	} else {
		m.emit(Event{Kind: EventStepDone, Step: s.Name})
	}
	return true
}

// open looks at a step that has not begun: its condition, its list, its notice. It reports whether the step ended with that.
func (m *machine) open(s *StepStatus, plan *stepPlan) bool {
	if plan.when != nil {
		value, err := plan.when.Eval(m.vars(plan))
		yes, isBool := value.(bool)
		if err == nil && !isBool {
			err = fmt.Errorf("when: %q is %s, want a bool", plan.When, describe(value))
		}
		if err != nil {
			m.failStep(s, failure(CodeExpression, "when: %v", err))
			return true
		}
		if !yes {
			m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "when is false: " + plan.When})
			return true
		}
	}
	if plan.notice != nil {
		value, err := plan.notice.eval(m.vars(plan))
		if err != nil {
			m.failStep(s, failure(CodeExpression, "notify: %v", err))
			return true
		}
		text := expr.Text(value)
		m.emit(Event{Kind: EventNoticed, Step: s.Name, Text: text, Severity: plan.Notify.Severity})
		m.notice("step", plan.Notify.Severity, text)
		m.emit(Event{Kind: EventStepDone, Step: s.Name})
		return true
	}
	if plan.each == nil {
		return false
	}
	items, err := m.items(plan)
	if err != nil {
		m.failStep(s, failure(CodeExpression, "each: %v", err))
		return true
	}
	m.emit(Event{Kind: EventStepFanned, Step: s.Name, Items: len(items)})
	return false
}

// items returns the list of an each step. It is worked out again after a restart: expressions over the same outputs
// have the same values.
func (m *machine) items(plan *stepPlan) ([]any, error) {
	if m.x.items != nil && m.p.steps[m.x.cursor] == plan {
		return m.x.items, nil
	}
	value, err := plan.each.Eval(m.vars(plan))
	if err != nil {
		return nil, err
	}
	items, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%q is %s, want a list", plan.Each, describe(value))
	}
	if m.p.steps[min(m.x.cursor, len(m.p.steps)-1)] == plan {
		m.x.items = items
	}
	return items, nil
}

// vars returns the variables of the expressions of a step, with the outputs that they read decoded.
func (m *machine) vars(plan *stepPlan) map[string]any {
	steps, _ := m.x.vars["steps"].(map[string]any)
	for _, at := range plan.uses {
		s := &m.x.Steps[at]
		if _, there := steps[s.Name]; there || s.State != StepDone {
			continue
		}
		if value, err := expr.Decode(s.Output, m.outputSchema(s, m.p.steps[at])); err == nil {
			steps[s.Name] = value
		}
	}
	return m.x.vars
}

// outputSchema is that of a step's output: of its tool's, or of a list of those.
func (m *machine) outputSchema(s *StepStatus, plan *stepPlan) *expr.Schema {
	if s.Fanned {
		return &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{"items": expr.List(plan.output)}}
	}
	return plan.output
}

// itemVars adds item and index.
func (m *machine) itemVars(s *StepStatus, plan *stepPlan, item int) (map[string]any, error) {
	vars := m.vars(plan)
	if !s.Fanned {
		return vars, nil
	}
	items, err := m.items(plan)
	if err != nil {
		return nil, err
	}
	if item >= len(items) {
		return nil, fmt.Errorf("each: the list has %d entries, there is no entry %d", len(items), item)
	}
	vars = maps.Clone(vars)
	vars["item"], vars["index"] = items[item], int64(item)
	return vars, nil
}

// startTask resolves the input of one item and starts its first attempt.
func (m *machine) startTask(s *StepStatus, plan *stepPlan, item int) {
	resolved, device, err := m.resolve(s, plan, item)
	if err != nil {
		m.emit(Event{Kind: EventAttemptFailed, Step: s.Name, Item: item, Error: failure(CodeExpression, "%v", err)})
		return
	}
	m.emit(Event{Kind: EventAttemptStarted, Step: s.Name, Item: item, Attempt: 1, Device: device, Input: resolved})
	m.run(s, plan, item, false)
}

func (m *machine) resolve(s *StepStatus, plan *stepPlan, item int) (json.RawMessage, string, error) {
	vars, err := m.itemVars(s, plan, item)
	if err != nil {
		return nil, "", err
	}
	resolved, err := plan.input(vars)
	if err != nil || plan.on == nil {
		return resolved, "", err
	}
	value, err := plan.on.eval(vars)
	if err != nil {
		return nil, "", fmt.Errorf("on: %w", err)
	}
	device, _ := value.(string)
	if device == "" {
		return nil, "", fmt.Errorf("on: %q is %s, want the name of a device", plan.On, describe(value))
	}
	return resolved, device, nil
}

// key is what a tool keeps its effect under. It is the same for all attempts of one item, until the execution was taken back over the step: then
// the effect was undone, and what comes is another one.
func (m *machine) key(s *StepStatus, item int) string {
	key := m.x.ID + "/" + s.Name + "/" + strconv.Itoa(item)
	if s.Round > 0 {
		key += "/r" + strconv.Itoa(s.Round)
	}
	if m.planted == "another key" {
		key += "/" + strconv.Itoa(s.Tasks[item].Attempt)
	}
	return key
}

func (m *machine) call(s *StepStatus, item, attempt int, kind string) Call {
	t := &s.Tasks[item]
	key := m.key(s, item)
	return Call{
		ID: key + "/" + kind + strconv.Itoa(attempt), Execution: m.x.ID, Flow: m.x.Flow, Step: s.Name, Item: item,
		Attempt: attempt, Key: key, Device: t.Device, Tool: s.Tool, Input: t.Input,
	}
}

// run has the shell run the task's current attempt.
func (m *machine) run(s *StepStatus, plan *stepPlan, item int, attach bool) {
	t := &s.Tasks[item]
	call := m.call(s, item, t.Attempt, "")
	call.Timeout = time.Duration(plan.Timeout)
	if plan.Total > 0 {
		call.Timeout = max(min(call.Timeout, t.Started.Add(time.Duration(plan.Total)).Sub(m.now)), time.Millisecond)
	}
	if plan.Flow != "" {
		call.Tool = plan.Flow
	}
	m.actions = append(m.actions, action{kind: actRun, call: call, remote: t.Device != "", attach: attach, flow: plan.Flow != ""})
}

// ended takes in the end of an attempt. One that is not the current one is late or told twice, and means nothing.
func (m *machine) ended(in input) {
	at := m.x.stepIndex(in.step)
	t := m.x.task(at, in.item)
	if t == nil {
		return
	}
	s, plan := &m.x.Steps[at], m.p.steps[at]
	switch {
	case in.undo:
		if t.Undo != nil && t.Undo.State == TaskRunning && t.Undo.Attempt == in.attempt {
			m.undoEnded(s, plan, t, in)
		}
		return
	case in.probe:
		if t.State == TaskDoubt && t.RetryAt.IsZero() && t.Attempt == in.attempt {
			m.probeEnded(s, plan, t, in)
		}
		return
	case (t.State != TaskRunning || t.Attempt != in.attempt) && m.planted != "take late ends":
		return
	}
	err := in.result.Error
	e := Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt, Logs: in.result.Logs, Error: err}
	switch {
	case t.Stopping != nil:
		e.Kind, e.Error = EventAttemptFailed, t.Stopping
		m.emit(e)
	case err == nil:
		e.Kind, e.Output = EventAttemptDone, in.result.Output
		m.emit(e)
	case m.x.Target != "":
		e.Kind = EventAttemptFailed
		m.emit(e)
	case err.Unknown:
		m.doubt(s, plan, t, e, false)
	default:
		m.retryOrFail(s, plan, t, e)
	}
}

// retryOrFail plans another attempt, or gives the task up.
func (m *machine) retryOrFail(s *StepStatus, plan *stepPlan, t *Task, e Event) {
	e.Kind = EventAttemptFailed
	if m.planted == "forget tries" {
		t.Tries = 0
	}
	next := m.now.Add(plan.Retry.delay(t.Tries))
	again := e.Error == nil || !e.Error.Permanent
	again = again && t.Tries < plan.Retry.Attempts && (s.failed == 0 || plan.OnFailure == Skip)
	again = again && (plan.Total == 0 || next.Before(t.Started.Add(time.Duration(plan.Total))))
	switch {
	case again:
		e.RetryAt = next
		m.emit(e)
		m.timer(s, t.Item, false, next)
	case plan.OnFailure == Pause:
		e.Kind = EventAttemptHeld
		m.emit(e)
	default:
		m.emit(e)
		if plan.OnFailure == Fail {
			m.giveUp(s)
		}
	}
}

// giveUp drops the retries of a step that has failed: nobody waits for them any more.
func (m *machine) giveUp(s *StepStatus) {
	for i := range s.Tasks {
		if t := &s.Tasks[i]; !t.RetryAt.IsZero() || t.State == TaskHeld {
			m.emit(Event{Kind: EventAttemptFailed, Step: s.Name, Item: i, Attempt: t.Attempt, Error: t.Error})
		}
	}
}

// failStep ends a step as failed and turns the execution back.
func (m *machine) failStep(s *StepStatus, err *Error) {
	m.emit(Event{Kind: EventStepFailed, Step: s.Name, Error: err})
	m.abandon(Failed, &Error{Code: err.Code, Message: "step " + s.Name + ": " + err.Message}, input{})
}

func (m *machine) timer(s *StepStatus, item int, undo bool, at time.Time) {
	m.actions = append(m.actions, action{kind: actTimer, at: at, call: Call{Execution: m.x.ID, Step: s.Name, Item: item, Undo: undo}})
}

// due takes in that a retry's time has come: the timer says so, not the clock, which may have jumped. A paused execution lets it pass: resuming looks at all timers again.
func (m *machine) due(in input) {
	at := m.x.stepIndex(in.step)
	t := m.x.task(at, in.item)
	if t == nil || m.x.Paused || m.hold {
		return
	}
	s, plan := &m.x.Steps[at], m.p.steps[at]
	if in.undo {
		if u := t.Undo; u != nil && !u.RetryAt.IsZero() && u.RetryAt.Equal(in.at) {
			m.startUndo(s, plan, t, Event{})
		}
		return
	}
	if t.RetryAt.IsZero() || !t.RetryAt.Equal(in.at) || m.x.Target != "" {
		return
	}
	if t.State == TaskDoubt {
		m.startProbe(s, plan, t)
		return
	}
	m.emit(Event{Kind: EventAttemptStarted, Step: s.Name, Item: t.Item, Attempt: t.Attempt + 1, Device: t.Device})
	m.run(s, plan, t.Item, false)
}

// rearm sets every timer again.
func (m *machine) rearm() {
	for i := range m.x.Steps {
		s := &m.x.Steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			if !t.RetryAt.IsZero() {
				m.timer(s, j, false, t.RetryAt)
			}
			if t.Undo != nil && !t.Undo.RetryAt.IsZero() {
				m.timer(s, j, true, t.Undo.RetryAt)
			}
		}
	}
}
