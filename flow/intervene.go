package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Intervention is what a person does to an execution that is open: who, why, and what the verb needs beside that. The others of its fields are not looked at.
type Intervention struct {
	// Actor and Reason stand in the history with what they did.
	Actor, Reason string
	// Step is the one that it is about. Cancel, Pause, Resume, Retry and Migrate are about the execution.
	Step string
	// Item of a step with each. Skip and Back, which are about whole steps, leave it out.
	Item int
	// Input is what RetryStep runs the tool with; a JSON object. Default: the input as it was.
	Input json.RawMessage
	// Output is what Skip takes for the step's output; a JSON object. Default: none, and the step counts as skipped. For Settle it is
	// what the tool returned; default {}.
	Output json.RawMessage
	// Case is the way that Choose has an if or a switch go: then, else, or case 0, case 1, ...
	Case string
	// Version is the one that Migrate moves to; 0 is the latest.
	Version int
	// Done is for Settle: the step, or its undo, had its effect. Otherwise it had none: the step fails, or the undo is left out.
	Done bool
	// Roles are the actor's, for Approve and Refuse: a step may ask for people of a role.
	Roles []string
}

func (i *Intervention) check() error {
	for name, data := range map[string]json.RawMessage{"Input": i.Input, "Output": i.Output} {
		var object map[string]json.RawMessage
		if len(data) > 0 && (json.Unmarshal(data, &object) != nil || object == nil) {
			return fmt.Errorf("%w: Intervention.%s must be a JSON object", ErrInvalid, name)
		}
	}
	return nil
}

func (e *Engine) intervene(ctx context.Context, id string, kind inputKind, i Intervention) error {
	err := i.check()
	if err == nil && kind == inRetry {
		var x *Execution
		if x, err = e.load(ctx, id); err == nil {
			err = x.retriable()
		}
	}
	if err == nil {
		err = e.tell(ctx, id, i.input(kind))
	}
	if err != nil {
		return fmt.Errorf("flow: %w", err)
	}
	return nil
}

// retriable says why there is nothing that Retry could try again.
func (x *Execution) retriable() error {
	if x.held == 0 && x.State != Stuck {
		return fmt.Errorf("%w: nothing of execution %s waits for a person; it is %s", ErrState, x.ID, x.State)
	}
	return nil
}

func (i *Intervention) input(kind inputKind) input {
	data := i.Output
	if kind == inRetryStep {
		data = i.Input
	}
	return input{kind: kind, step: i.Step, item: i.Item, done: i.Done, result: Result{Output: data}, actor: i.Actor, reason: i.Reason, roles: i.Roles, name: i.Case, version: i.Version}
}

// Cancel turns an execution back: what runs is stopped, what was done is undone in reverse, and it ends as cancelled; one that is paused goes on with that.
// It returns once that is durable, not once it is done: Watch tells. Cancelling one that is being compensated already changes nothing; one that has ended
// is an ErrState.
func (e *Engine) Cancel(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inCancel, i)
}

// Pause lets attempts in flight end and starts nothing new until Resume, or Cancel; what is cut off by a restart of the engine is not made again before. A
// sub-flow is an attempt of the execution that calls it, and goes on: a Bulk with Filter.Parent pauses it as well.
func (e *Engine) Pause(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inPause, i)
}

// Resume goes on with a paused execution.
func (e *Engine) Resume(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inResume, i)
}

// Retry tries every step and undo of the execution again that waits for a person; their counts of attempts start over. If none does, it is an
// ErrState.
func (e *Engine) Retry(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inRetry, i)
}

// Skip ends the step at which an execution is, and goes on: with Output if there is one, without any otherwise. What runs of it is
// stopped; if the execution turns back later, it is undone like any other. A step at which the execution is not is an ErrState.
func (e *Engine) Skip(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inSkip, i)
}

// Fail ends one item of the step at which an execution is as failed for good, whatever it does; what runs of it is stopped. What follows is what
// the step's on_failure says, except that nobody is asked: the person has spoken.
func (e *Engine) Fail(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inFail, i)
}

// RetryStep tries one item again that waits for a person or for its next attempt, with another Input if one is given, under
// the same idempotency key. Its count of attempts starts over.
func (e *Engine) RetryStep(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inRetryStep, i)
}

// Back takes an execution back to an earlier step, or to the beginning of the one at which it is: what was done since is undone in reverse, then
// the execution goes on from there, with new idempotency keys.
func (e *Engine) Back(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inBack, i)
}

// Choose says which way an if or a switch goes, whatever its conditions say: one that has not begun, or whose conditions could not be worked out, so that
// it waits for a person. If the execution is on another way of it already, what was done there is undone first. One at which the execution
// has been and no longer is, is an ErrState: take the execution back to it first.
func (e *Engine) Choose(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inChoose, i)
}

// Migrate moves an open execution to another Version of its flow. What it has come through stays, outputs and undos and keys and all, and must
// be in the new version with the same names, kinds and order; what is under way must be the same but for its title, stage, retry, timeouts, parallel, batch,
// quota and on_failure; what comes after is the new version's. Otherwise it is an ErrState that names every reason.
func (e *Engine) Migrate(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inMigrate, i)
}

// resolve gives an input that moves an execution of a flow to another version that version's program.
func (e *Engine) resolve(ctx context.Context, flow string, in *input) (err error) {
	if in.kind == inMigrate && in.program == nil {
		in.program, err = e.version(ctx, flow, in.version)
	}
	return err
}

// Settle says how one item ended that waits for a person, or its undo.
func (e *Engine) Settle(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inSettle, i)
}

// Approve answers a step that asks for approval, with the reason as a comment. The step ends once as many people as it says have approved; who has
// approved before changes nothing. A step that does not ask, or not yet, is an ErrState; one that asks others is an ErrNotAsked.
func (e *Engine) Approve(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inApprove, i)
}

// Refuse answers a step that asks for approval with no: it fails with the code CodeRefused, and what follows is what its on_failure says. Errors are
// those of Approve.
func (e *Engine) Refuse(ctx context.Context, id string, i Intervention) error {
	return e.intervene(ctx, id, inRefuse, i)
}

// refuse has whoever handed the input in be told why it changes nothing.
func (m *machine) refuse(format string, args ...any) {
	m.refused = fmt.Errorf("%w: "+format, append([]any{ErrState}, args...)...)
}

// invalid is refuse for what is wrong wherever the execution stands.
func (m *machine) invalid(format string, args ...any) {
	m.refused = fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

func (m *machine) noStep(name string) {
	names := make([]string, len(m.x.Steps))
	for i := range m.x.Steps {
		names[i] = m.x.Steps[i].Name
	}
	m.refused = fmt.Errorf("%w: flow %s version %d has no step %q%s", ErrNotFound, m.x.Flow, m.x.Version, name, meant(name, names))
}

func (m *machine) refusePaused() {
	m.refuse("execution %s is paused by %s; resume it first", m.x.ID, m.x.pauser)
}

// here returns the step at which the execution is, if that is the one that the input names; else it refuses.
func (m *machine) here(in input) (*StepStatus, *stepPlan) {
	x := m.x
	switch at := x.stepIndex(in.step); {
	case at < 0:
		m.noStep(in.step)
	case x.Target != "":
		m.refuse("execution %s is turning back; wait for its end", x.ID)
	case !x.here(at):
		m.refuse("execution %s is at step %q, not at %q", x.ID, x.Step, in.step)
	default:
		for around := at; around >= 0; around = m.p.steps[around].parent {
			if s := &x.Steps[around]; s.Skipping {
				m.refuse("step %q is being skipped already: %s; what runs of it is being stopped", s.Name, s.Reason)
				return nil, nil
			}
		}
		return &x.Steps[at], m.p.steps[at]
	}
	return nil, nil
}

// drop ends one item as failed by a person. What runs is stopped first, and its end awaited: until then it may still have its effect.
func (m *machine) drop(s *StepStatus, t *Task, err *Error, in input) {
	e := Event{Kind: EventAttemptFailed, Step: s.Name, Item: t.Item, Attempt: t.Attempt, Error: err, Actor: in.actor, Reason: in.reason}
	if t.inFlight() {
		e.Kind = EventAttemptStopping
		m.stop(s, t)
	}
	m.emit(e)
}

// dropped takes in that what a person has dropped has ended.
func (m *machine) dropped(s *StepStatus, plan *stepPlan, e Event, err *Error) {
	e.Kind, e.Error = EventAttemptFailed, err
	m.emit(e)
	if plan.failing(s) {
		m.giveUp(s)
	}
}

func byPerson(what string, in input) *Error {
	return &Error{Code: CodePerson, Message: what + " by " + in.actor + reasonText(in.reason), Permanent: true}
}

func (m *machine) skip(in input) {
	s, plan := m.here(in)
	if s == nil {
		return
	}
	if len(in.result.Output) > 0 {
		switch {
		case plan.holds():
			m.refuse("step %q holds others and has no output", s.Name)
			return
		case plan.mapped != nil: // what others see of it is not what its tool returns
		default:
			if err := plan.fits(in.result.Output); err != nil {
				m.invalid("the output given for step %q: %v", s.Name, err)
				return
			}
		}
	}
	m.unpark(in)
	err := byPerson("skipped", in)
	m.emit(Event{Kind: EventStepSkipping, Step: s.Name, Output: in.result.Output, Actor: in.actor, Reason: err.Message})
	for at := s.at; at < plan.end; at++ {
		inner := &m.x.Steps[at]
		for i := range inner.Tasks {
			if t := &inner.Tasks[i]; open(t.State) {
				m.drop(inner, t, err, in)
			}
		}
	}
}

// skipped ends a step that a person skips, once nothing of it or in it runs any more; it reports whether it has.
func (m *machine) skipped(at int) bool {
	for i := at; i < m.p.steps[at].end; i++ {
		if m.x.Steps[i].active > 0 {
			return false
		}
	}
	s := &m.x.Steps[at]
	e := Event{Kind: EventStepSkipped, Step: s.Name, Reason: s.Reason}
	if len(s.Output) > 0 {
		e.Kind, e.Output = EventStepDone, s.Output
	}
	m.emit(e)
	return true
}

// fits says what is wrong with an output that a person gives for the step.
func (p *stepPlan) fits(output json.RawMessage) error {
	if p.each == nil {
		return validate(p.returns, output)
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(output, &list); err != nil || list.Items == nil {
		return errors.New(`a step with each has the output {"items": [...]}`)
	}
	for i, item := range list.Items {
		if err := validate(p.returns, item); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func (m *machine) fail(in input) {
	s, plan := m.here(in)
	if s == nil {
		return
	}
	t := m.x.task(s.at, in.item)
	switch {
	case plan.holds() || s.Handling:
		m.refuse("step %q holds others; fail the one of them that runs", s.Name)
		return
	case t == nil && in.item == 0 && !s.Fanned: // it has not begun
	case t == nil || !open(t.State):
		m.refuse("item %d of step %q is not under way", in.item, s.Name)
		return
	}
	m.unpark(in)
	if t == nil {
		m.emit(Event{Kind: EventAttemptFailed, Step: s.Name, Error: byPerson("failed", in), Actor: in.actor, Reason: in.reason})
		return
	}
	m.drop(s, t, byPerson("failed", in), in)
	if plan.failing(s) {
		m.giveUp(s)
	}
}

func (m *machine) retryStep(in input) {
	s, plan := m.here(in)
	if s == nil {
		return
	}
	t := m.x.task(s.at, in.item)
	if t == nil || t.State != TaskHeld && t.State != TaskRetrying {
		m.refuse("item %d of step %q waits neither for a person nor for its next attempt", in.item, s.Name)
		return
	}
	switch {
	case m.x.Paused:
		m.refusePaused()
		return
	case len(in.result.Output) > 0 && (s.unopened() || plan.kind().waits() != waitNothing):
		m.refuse("step %q has not come to its input; retry it without one", s.Name)
		return
	}
	if len(in.result.Output) > 0 {
		// It would fail as the tool's input at once, and for good: a slip of the pen must not turn the execution back.
		if err := validate(plan.accepts, in.result.Output); err != nil {
			m.invalid("the input given for step %q: %v", s.Name, err)
			return
		}
	}
	m.unpark(in)
	if len(in.result.Output) == 0 {
		m.again(s, plan, t, Event{Actor: in.actor, Reason: in.reason})
		return
	}
	m.begin(s, plan, t.Item, Event{
		Step: s.Name, Item: t.Item, Attempt: t.Attempt + 1, Again: true, Device: t.Device, Input: in.result.Output, Actor: in.actor, Reason: in.reason,
	})
}

// back begins to undo what came after the beginning of a step.
func (m *machine) back(in input) {
	x := m.x
	switch at := x.stepIndex(in.step); {
	case at < 0:
		m.noStep(in.step)
	case x.Target != "":
		m.refuse("execution %s is turning back; wait for its end", x.ID)
	case !x.reached(at):
		m.refuse("execution %s is at step %q, and not yet or no longer within reach of %q", x.ID, x.Step, in.step)
	default:
		m.turn(Event{Kind: EventReturning, Step: in.step, Actor: in.actor, Reason: in.reason})
	}
}

// unpark notes that a person has given the execution something to do.
func (m *machine) unpark(in input) {
	if m.x.State == Stuck {
		m.emit(Event{Kind: EventRetried, Actor: in.actor, Reason: in.reason})
	}
}
