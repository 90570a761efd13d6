package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

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
	answers []Answer   // to the letters that are acted on
	hold    bool       // the engine is stopping: take in what ends, start nothing
	ready   []int      // blocks to look at
	refused error      // why the last input changes nothing; nil if it may
	planted string     // a bug that a test plants
	gate    gatekeeper // nil: everything may start at once
}

// step applies one input.
func (m *machine) step(in input) {
	m.refused = nil
	if m.x.State.Ended() && !(in.kind == inCancel && in.done && m.x.State == Done) {
		if in.grant != nil {
			m.actions = append(m.actions, action{kind: actUnused, grant: in.grant})
		}
		if in.kind >= inCancel && in.kind <= inRefuse {
			m.refuse("execution %s is %s", m.x.ID, m.x.State)
		}
		return
	}
	if at := m.x.stepIndex(in.step); at >= 0 {
		m.ready = append(m.ready, m.p.steps[at].block)
	}
	switch in.kind {
	case inGo:
		m.survey(0)
	case inRecover:
		m.recover()
		m.survey(0)
	case inEnded:
		m.ended(in)
	case inDue:
		m.due(in)
	case inCancel:
		if m.x.Target == "" || m.x.Target == Running {
			if m.x.Paused { // nobody would look for another button while it stands still
				m.emit(Event{Kind: EventResumed, Actor: in.actor, Reason: in.reason})
			}
			m.abandon(Cancelled, &Error{Code: CodeCancelled, Message: "by " + in.actor + reasonText(in.reason)}, in)
		}
	case inPause:
		if !m.x.Paused {
			m.emit(Event{Kind: EventPaused, Actor: in.actor, Reason: in.reason})
		}
	case inResume:
		if m.x.Paused {
			m.emit(Event{Kind: EventResumed, Actor: in.actor, Reason: in.reason})
			m.rearm()
			m.survey(0)
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
	case inSignal:
		m.signal(in)
	case inApprove:
		m.approve(in)
	case inChoose:
		m.chooseWay(in)
	case inMigrate:
		m.migrate(in)
	case inRefuse:
		m.disapprove(in)
	case inAdmitted:
		m.admitted(in)
	case inLocked:
		m.survey(0)
	case inWaits:
		m.waits(in)
	}
	m.advance()
	m.strand()
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

// expect makes room for the start of so many attempts at once, which are large, and more than a few would be moved again and again.
func (m *machine) expect(starts int) {
	if starts > 16 {
		m.events, m.actions = slices.Grow(m.events, starts+2), slices.Grow(m.actions, starts)
	}
}

// survey notes every block in which there may be something to do, from block b inwards.
func (m *machine) survey(b int) {
	state, block := &m.x.blocks[b], &m.p.blocks[b]
	if state.pos < len(block.steps) {
		at := block.steps[state.pos]
		if s := &m.x.Steps[at]; s.State == StepRunning && s.open > 0 {
			for _, inner := range m.p.steps[at].blocks {
				if m.x.blocks[inner].entered && m.x.blocks[inner].pos < len(m.p.blocks[inner].steps) {
					m.survey(inner)
				}
			}
			return
		}
	}
	m.ready = append(m.ready, b)
}

// advance does whatever can be done now.
func (m *machine) advance() {
	for !m.x.State.Ended() && !m.x.Paused && !m.hold {
		switch last := len(m.ready) - 1; {
		case m.x.Target != "":
			if !m.compensate() {
				return
			}
		case last < 0:
			return
		case !m.locked():
			if m.x.Target == "" {
				return
			}
		default:
			b := m.ready[last]
			m.ready = m.ready[:last]
			m.work(b)
		}
	}
}

// work goes on with a block, and with those around it as it ends.
func (m *machine) work(b int) {
	for m.x.Target == "" && m.x.State != Done {
		if c := m.closing(b); c >= 0 {
			if !m.skipped(c) {
				return
			}
			b = m.p.steps[c].block
			continue
		}
		block, pos := &m.p.blocks[b], m.x.blocks[b].pos
		switch {
		case !m.x.blocks[b].entered:
			return
		case pos < len(block.steps):
			if !m.forward(block.steps[pos]) {
				return
			}
		case block.owner < 0:
			m.finish(Done)
		default:
			if s := &m.x.Steps[block.owner]; s.State != StepRunning || s.open > 0 {
				if m.planted == "join early" && s.State == StepRunning {
					m.close(s.at)
				}
				return
			}
			b = m.p.steps[block.owner].block
		}
	}
}

// close ends a step whose blocks have ended.
func (m *machine) close(at int) {
	s := &m.x.Steps[at]
	if s.Handling {
		m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "it failed, and its handler has run", Error: s.Error})
		return
	}
	m.emit(Event{Kind: EventStepDone, Step: s.Name})
}

// closing returns the outermost step around a block that a person skips, or -1.
func (m *machine) closing(b int) int {
	out := -1
	for at := m.p.blocks[b].owner; at >= 0; at = m.p.steps[at].parent {
		if m.x.Steps[at].Skipping {
			out = at
		}
	}
	return out
}

// finish ends the execution.
func (m *machine) finish(state State) {
	e := Event{Kind: EventKind("execution." + string(state))}
	if state == Done {
		output, err := m.result()
		if err != nil {
			m.abandon(Failed, failure(CodeExpression, "output: %v", err), input{})
			return
		}
		e.Output = output
	}
	if m.x.Parent == "" {
		e.Keys = m.x.Locks
		if m.gate != nil {
			e.Keys = m.gate.held()
		}
	}
	m.emit(e)
	if state == Failed {
		m.notice("failed", "critical", fmt.Sprintf("flow %s failed and was compensated: %v", m.x.Flow, m.x.Error))
	}
}

// forward works on step i; it reports whether the step ended (or the execution turned back), so that there is more to do.
func (m *machine) forward(i int) bool {
	s, plan := &m.x.Steps[i], m.p.steps[i]
	if s.Skipping {
		return m.skipped(i)
	}
	switch {
	case s.open > 0 || s.unopened():
		return false
	case s.State == StepRunning && (plan.holds() || s.Handling):
		m.close(i)
		return true
	}
	if s.State == StepWaiting {
		if ended := m.open(s, plan); ended || s.open > 0 || plan.holds() {
			return ended
		}
	}
	if s.active > 0 && plan.kind().waits() != waitNothing {
		m.awaited(s, plan)
	}
	if plan.Repeat != nil {
		return m.iterate(s, plan)
	}
	tasks := 1
	if s.Fanned {
		tasks = len(s.Tasks)
	}
	if s.Fanned {
		m.expect(min(plan.Parallel-s.active, tasks-s.next))
	}
	for s.next < tasks && (plan.room(s) || m.planted == "no batches" && s.active < plan.Parallel) && !plan.failing(s) {
		m.startTask(s, plan, s.next)
	}
	switch {
	case s.active > 0 || s.next < tasks && !plan.failing(s):
		return false
	case plan.failing(s), s.failed > 0 && !s.Fanned:
		return m.failStep(s, plan, s.lastErr)
	}
	return m.endStep(s, plan)
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
			return m.failStep(s, plan, failure(CodeExpression, "when: %v", err))
		}
		if !yes {
			m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "when is false: " + plan.When})
			return true
		}
	}
	if plan.holds() {
		return m.enter(s, plan)
	}
	if plan.notice != nil {
		value, err := plan.notice.eval(m.vars(plan))
		if err != nil {
			return m.failStep(s, plan, failure(CodeExpression, "notify: %v", err))
		}
		text := expr.Text(value)
		m.emit(Event{Kind: EventNoticed, Step: s.Name, Text: text, Severity: plan.Notify.Severity})
		m.notice("step", plan.Notify.Severity, text)
		m.emit(Event{Kind: EventStepDone, Step: s.Name})
		return true
	}
	if plan.kind().waits() != waitNothing {
		m.park(s, plan, Event{})
		return false
	}
	if plan.each == nil {
		return false
	}
	items, err := m.items(s, plan)
	if err != nil {
		return m.failStep(s, plan, failure(CodeExpression, "each: %v", err))
	}
	m.emit(Event{Kind: EventStepFanned, Step: s.Name, Items: len(items)})
	return false
}

// startTask resolves the input of one item and starts its first attempt.
func (m *machine) startTask(s *StepStatus, plan *stepPlan, item int) {
	resolved, device, key, err := m.resolve(s, plan, item)
	if err != nil {
		m.failTask(s, plan, Event{Step: s.Name, Item: item, Error: failure(CodeExpression, "%v", err)})
		return
	}
	m.begin(s, plan, item, Event{Step: s.Name, Item: item, Attempt: 1, Device: device, Input: resolved, Lock: key})
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
	call.Timeout, call.Heartbeat = time.Duration(plan.Timeout), time.Duration(plan.Heartbeat)
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
	e := Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt, Logs: in.result.Logs, Ran: in.result.Ran, Error: err}
	switch {
	case t.Stopping != nil:
		m.dropped(s, plan, e, t.Stopping)
	case err == nil:
		m.succeed(s, plan, t, e, in.result.Output, in.result.hidden)
	case m.turning(s):
		e.Kind = EventAttemptFailed
		m.emit(e)
	case err.Unknown:
		m.doubt(s, plan, t, e, false)
	default:
		m.retryOrFail(s, plan, t, e)
	}
}

// waits notes what the tool of a running attempt says that it waits for.
func (m *machine) waits(in input) {
	t := m.x.task(m.x.stepIndex(in.step), in.item)
	if t == nil || t.State != TaskRunning || t.Attempt != in.attempt || t.Waits == in.name {
		return
	}
	m.emit(Event{Kind: EventAttemptWaits, Step: in.step, Item: in.item, Attempt: in.attempt, Text: in.name})
}

// succeed ends a task with what its tool returned. If the output that the step makes of it cannot be made, it has failed all the same.
func (m *machine) succeed(s *StepStatus, plan *stepPlan, t *Task, e Event, output json.RawMessage, hidden []string) {
	e.Kind, e.Output, e.Hidden = EventAttemptDone, output, hidden
	if plan.mapped != nil && !m.turning(s) {
		if _, err := m.mapOutput(s, plan, t, output); err != nil {
			e.Output, e.Hidden, e.Error = nil, nil, failure(CodeExpression, "output: %v", err)
			m.failTask(s, plan, e)
			return
		}
	}
	m.emit(e)
}

// retryOrFail plans another attempt, or gives the task up.
func (m *machine) retryOrFail(s *StepStatus, plan *stepPlan, t *Task, e Event) {
	e.Kind = EventAttemptFailed
	if m.planted == "forget tries" {
		t.Tries = 0
	}
	next := m.now.Add(plan.Retry.delay(t.Tries))
	again := plan.Retry.again(e.Error) && t.Tries < plan.Retry.Attempts && !plan.failing(s)
	again = again && (plan.Total == 0 || next.Before(t.Started.Add(time.Duration(plan.Total))))
	switch {
	case again:
		e.RetryAt = next
		m.emit(e)
		m.timer(s, t.Item, false, next)
	default:
		m.failTask(s, plan, e)
	}
}

// failTask gives a task up: what its step's on_failure says of it, as long as no person has spoken.
func (m *machine) failTask(s *StepStatus, plan *stepPlan, e Event) {
	e.Kind = EventAttemptFailed
	if plan.OnFailure == Pause && s.failed >= plan.spare(s) {
		e.Kind = EventAttemptHeld
	}
	m.emit(e)
	if plan.failing(s) {
		m.giveUp(s)
	}
}

// turning reports whether the execution turns back over a step.
func (m *machine) turning(s *StepStatus) bool { return m.x.Target != "" && s.at >= m.x.floor }

// giveUp drops the retries of a step that has failed: nobody waits for them any more.
func (m *machine) giveUp(s *StepStatus) {
	for i := range s.Tasks {
		t := &s.Tasks[i]
		e := Event{Kind: EventAttemptFailed, Step: s.Name, Item: i, Attempt: t.Attempt, Error: t.Error}
		switch {
		case t.State == TaskParked:
			e.Error = &Error{Code: CodeCancelled, Message: "given up before it came: " + t.For}
		case t.RetryAt.IsZero() && t.State != TaskHeld && t.State != TaskQueued:
			continue
		case t.Error == nil:
			e.Error = &Error{Code: CodeCancelled, Message: "given up while it waited for its turn"}
		}
		m.emit(e)
	}
}

// failStep does what on_failure says of a step that has failed for good, and reports whether there is more to do in its block.
func (m *machine) failStep(s *StepStatus, plan *stepPlan, err *Error) bool {
	switch plan.OnFailure {
	case Skip:
		m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "it failed, and the flow goes on without it", Error: err})
		return true
	case Handle:
		m.emit(Event{Kind: EventStepHandling, Step: s.Name, Error: err})
		m.inwards(s)
		return false
	case Pause:
		if len(s.Tasks) == 0 {
			m.emit(Event{Kind: EventStepHeld, Step: s.Name, Error: err})
			return false
		}
	}
	m.emit(Event{Kind: EventStepFailed, Step: s.Name, Error: err})
	m.abandon(Failed, &Error{Code: err.Code, Message: "step " + s.Name + ": " + err.Message}, input{})
	return true
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
	switch t.State {
	case TaskDoubt:
		m.startProbe(s, plan, t)
		return
	case TaskParked:
		m.waited(s, plan, t)
		return
	}
	if t.Attempt == 0 { // the next iteration
		m.startTask(s, plan, t.Item)
		return
	}
	m.begin(s, plan, t.Item, Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt + 1, Device: t.Device})
}

// rearm sets every timer again, and has what is queued ask again.
func (m *machine) rearm() {
	m.requeue()
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
