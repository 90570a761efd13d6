package flow

import (
	"context"
	"errors"
	"fmt"
)

// Rehearsal is what a start would begin.
type Rehearsal struct {
	Flow    string         `json:"flow"`
	Version int            `json:"version"`
	Running string         `json:"running,omitempty"` // the execution that the key started before: nothing would begin
	Params  map[string]any `json:"params"`            // as the flow would see them, defaults filled in, secrets struck out
	Steps   []Step         `json:"steps"`             // in order; what they do depends on what they find
}

// RehearseStart checks a start as Start does, and tells what it would begin. It begins nothing.
func (e *Engine) RehearseStart(ctx context.Context, name string, params map[string]any, options ...StartOption) (Rehearsal, error) {
	var o startOptions
	for _, option := range options {
		option(&o)
	}
	p, err := e.program(ctx, name)
	if err != nil {
		return Rehearsal{}, fmt.Errorf("flow: rehearse %s: %w", name, err)
	}
	bound, err := p.bind(params)
	if err != nil {
		return Rehearsal{}, fmt.Errorf("flow: %w", err)
	}
	out := Rehearsal{Flow: name, Version: p.Version, Steps: p.Steps, Params: redact(bound, p.secrets(bound))}
	if o.key != "" {
		if row, err := e.config.Store.ByKey(ctx, name, o.key); err == nil {
			out.Running, out.Steps = row.ID, nil
		}
	}
	return out, nil
}

// RehearseSave checks a document as Save does, and returns the definition that Save would keep, with the version that it
// would get; if the latest version is the same, it is that one. It keeps nothing.
func (e *Engine) RehearseSave(ctx context.Context, source []byte) (d Definition, fresh bool, err error) {
	p, faults := compile(source, e.config.Tools)
	if len(faults) > 0 {
		return Definition{}, false, &DefinitionError{parse(source).Name, faults}
	}
	last, err := e.config.Store.Definition(ctx, p.Name, 0)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Definition{}, false, fmt.Errorf("flow: rehearse saving %s: %w", p.Name, err)
	}
	p.Version, fresh = last.Version, err != nil || last.Digest != p.Digest
	if fresh {
		p.Version++
	}
	return p.Definition, fresh, nil
}

// The orders that RehearseOrder knows.
const (
	OrderCancel = "cancel"
	OrderRetry  = "retry"
	OrderPause  = "pause"
	OrderResume = "resume"
)

// RehearseOrder returns the events that an order would add to an execution at once, from what is stored of it: of those
// that come later, as undos end, it says nothing. None: the order would change nothing. It changes nothing itself.
func (e *Engine) RehearseOrder(ctx context.Context, id, order, actor, reason string) ([]Event, error) {
	in := input{actor: actor, reason: reason}
	switch order {
	case OrderCancel:
		in.kind = inCancel
	case OrderRetry:
		in.kind = inRetry
	case OrderPause:
		in.kind = inPause
	case OrderResume:
		in.kind = inResume
	default:
		return nil, fmt.Errorf("%w: there is no order %q; there are cancel, retry, pause and resume", ErrInvalid, order)
	}
	x, err := e.load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("flow: execution %s: %w", id, err)
	}
	if order == OrderRetry && !x.State.Ended() && x.held == 0 && x.State != Stuck {
		return nil, fmt.Errorf("%w: nothing of execution %s waits for a person; it is %s", ErrState, id, x.State)
	}
	return e.rehearse(ctx, x, in)
}

// RehearseStep is RehearseOrder for what a person does to one step: skip, fail, retry, back, or settle, for which done
// says whether the step had its effect.
func (e *Engine) RehearseStep(ctx context.Context, id, verb string, i Intervention, done bool) ([]Event, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	in := input{step: i.Step, item: i.Item, result: Result{Output: i.Output}, actor: i.Actor, reason: i.Reason}
	x, err := e.load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("flow: execution %s: %w", id, err)
	}
	switch verb {
	case "skip":
		in.kind = inSkip
	case "fail":
		in.kind = inFail
	case "retry":
		in.kind, in.result.Output = inRetryStep, i.Input
	case "back":
		in.kind = inBack
	case "settle":
		in.kind, in.done = inSettle, done
		if t := x.task(x.stepIndex(i.Step), i.Item); t == nil || t.State != TaskHeld && (t.Undo == nil || t.Undo.State != TaskHeld) {
			return nil, fmt.Errorf("%w: step %q item %d of execution %s does not wait for a person", ErrState, i.Step, i.Item, id)
		}
	default:
		return nil, fmt.Errorf("%w: verb %q is unknown; want skip, fail, retry, back or settle", ErrInvalid, verb)
	}
	return e.rehearse(ctx, x, in)
}

// rehearse steps a copy of an execution that nobody else has.
func (e *Engine) rehearse(ctx context.Context, x *Execution, in input) ([]Event, error) {
	if x.State.Ended() {
		return nil, fmt.Errorf("%w: execution %s is %s", ErrState, x.ID, x.State)
	}
	p, err := e.version(ctx, x.Flow, x.Version)
	if err != nil {
		return nil, err
	}
	secrets := x.def.secrets(x.Params)
	m := &machine{p: p, x: x, now: now()}
	m.step(in)
	if m.refused != nil {
		return nil, m.refused
	}
	for i := range m.events {
		m.events[i] = redact(m.events[i], secrets)
	}
	return m.events, nil
}
