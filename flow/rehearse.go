package flow

import (
	"context"
	"errors"
	"fmt"
)

// Rehearsal is what a start would begin: a Plan for which every tool that has a plan mode was asked what it would touch.
type Rehearsal struct {
	Plan
	Running string        `json:"running,omitempty"` // the execution that the key started before: nothing would begin, and nothing was planned
	Calls   []PlannedCall `json:"calls"`             // of the steps whose inputs are known, sub-flows included
	Touches []Touch       `json:"touches"`           // of all calls, each once
}

// RehearseStart checks a start as Start does, but for whether too many executions are open now, and tells what it would begin. It works that out as
// Plan does, and asks the tools, in plan mode, what they would touch. What they say that they would return feeds the steps behind them. A
// tool without a plan mode is not run, unless it is pure: its call is listed with its input, and Known is false. Where a step's input depends on what is not
// known, or it is open whether it runs, no call is listed: the Plan says what it needs. Nothing is begun, and nothing stored.
func (e *Engine) RehearseStart(ctx context.Context, name string, params map[string]any, options ...StartOption) (Rehearsal, error) {
	out, err := e.rehearseStart(ctx, name, params, options)
	if err != nil {
		return Rehearsal{}, fmt.Errorf("flow: rehearse %s: %w", name, err)
	}
	return out, nil
}

func (e *Engine) rehearseStart(ctx context.Context, name string, params map[string]any, options []StartOption) (Rehearsal, error) {
	s, err := e.prepare(ctx, name, params, options)
	if err != nil {
		return Rehearsal{}, err
	}
	running, err := e.before(ctx, s)
	if err == nil {
		err = s.bind()
	}
	if err != nil {
		return Rehearsal{}, err
	}
	out := Rehearsal{Running: running}
	if running != "" {
		out.Plan = Plan{Flow: name, Version: s.p.Version, Title: s.p.Title, Params: s.params}
		return redact(out, s.p.secrets(s.params)), nil
	}
	r := &rehearsing{engine: e, ctx: ctx}
	out.Plan, out.Calls = r.flow(s.p, s.params, "", 0).out, r.calls
	seen := map[Touch]bool{}
	for _, call := range r.calls {
		for _, touch := range call.Touches {
			if !seen[touch] {
				seen[touch] = true
				out.Touches = append(out.Touches, touch)
			}
		}
	}
	e.missing(ctx, s.p, &out.Plan)
	return redact(out, r.secrets), nil
}

// RehearseSave checks a document as Save does, and returns the definition that Save would keep, with the version that it
// would get; if the latest version is the same, it is that one. It keeps nothing.
func (e *Engine) RehearseSave(ctx context.Context, source []byte) (d Definition, fresh bool, err error) {
	p, faults, err := e.compile(ctx, source, false)
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
