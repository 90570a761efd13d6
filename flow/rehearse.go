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
	p, err := e.program(ctx, name, o.version)
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
	p, faults, err := e.compile(ctx, source)
	if err != nil {
		return Definition{}, false, fmt.Errorf("flow: rehearse saving: %w", err)
	}
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

// The orders that a person can give to an open execution; the last five are about one step of it.
const (
	OrderCancel    = "cancel"
	OrderRetry     = "retry"
	OrderPause     = "pause"
	OrderResume    = "resume"
	OrderSkip      = "skip"
	OrderFail      = "fail"
	OrderRetryStep = "retry-step"
	OrderBack      = "back"
	OrderSettle    = "settle"
	OrderApprove   = "approve"
	OrderRefuse    = "refuse"
	OrderChoose    = "choose"
	OrderMigrate   = "migrate"
)

// RehearseOrder returns the events that an order would add to an execution at once, from what is stored of it: of those
// that come later, as undos end, it says nothing. None: the order would change nothing. It changes nothing itself.
func (e *Engine) RehearseOrder(ctx context.Context, id, order string, i Intervention) ([]Event, error) {
	kind := map[string]inputKind{
		OrderCancel: inCancel, OrderRetry: inRetry, OrderPause: inPause, OrderResume: inResume,
		OrderSkip: inSkip, OrderFail: inFail, OrderRetryStep: inRetryStep, OrderBack: inBack, OrderSettle: inSettle,
		OrderApprove: inApprove, OrderRefuse: inRefuse, OrderChoose: inChoose, OrderMigrate: inMigrate,
	}[order]
	if kind == 0 {
		return nil, fmt.Errorf("%w: there is no order %q", ErrInvalid, order)
	}
	if err := i.check(); err != nil {
		return nil, err
	}
	return e.rehearse(ctx, id, i.input(kind))
}

// rehearse applies an input to what is stored.
func (e *Engine) rehearse(ctx context.Context, id string, in input) ([]Event, error) {
	x, err := e.load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("flow: execution %s: %w", id, err)
	}
	switch {
	case x.State.Ended():
		return nil, fmt.Errorf("%w: execution %s is %s", ErrState, id, x.State)
	case in.kind == inRetry && x.held == 0 && x.State != Stuck:
		return nil, fmt.Errorf("%w: nothing of execution %s waits for a person; it is %s", ErrState, id, x.State)
	}
	p, err := e.version(ctx, x.Flow, x.Version)
	if err != nil {
		return nil, err
	}
	secrets := x.def.secrets(x.Params)
	if err := e.resolve(ctx, x.Flow, &in); err != nil {
		return nil, err
	}
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
