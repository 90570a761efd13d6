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

// RehearseStart checks a start as Start does, but for whether too many executions are open now, and tells what it would begin. It begins nothing.
func (e *Engine) RehearseStart(ctx context.Context, name string, params map[string]any, options ...StartOption) (Rehearsal, error) {
	var o startOptions
	for _, option := range options {
		option(&o)
	}
	p, err := e.program(ctx, name, o.version)
	if err != nil {
		return Rehearsal{}, fmt.Errorf("flow: rehearse %s: %w", name, err)
	}
	if err := p.mayStart(&o); err != nil {
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
