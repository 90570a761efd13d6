package flow

import (
	"context"
	"errors"
	"slices"
)

// compile checks a document against the engine's tools and the flows in its store. calling are the flows whose compilation asked for this
// one: a store in which flows call each other in a circle, which Save refuses, must not hang the engine.
func (e *Engine) compile(ctx context.Context, source []byte, stored bool, calling ...versionKey) (*program, []Fault, error) {
	var failed error
	p, faults := compileWith(source, library{tools: e.config.Tools, stored: stored, flow: func(name string, version int) *program {
		key := versionKey{name, version}
		if slices.Contains(calling, key) || len(calling) > maxNesting {
			return nil
		}
		found, err := e.version(ctx, name, version, append(slices.Clone(calling), key)...)
		var broken *DefinitionError
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.As(err, &broken) {
			failed = err
		}
		return found
	}, missing: func(name string, version int) bool {
		_, err := e.config.Store.Definition(ctx, name, version)
		return errors.Is(err, ErrNotFound)
	}})
	return p, faults, failed
}

// Lint returns what is wrong with a document, in the order of places; nothing but warnings if Save would take it. The error is the store's.
func (e *Engine) Lint(ctx context.Context, source []byte) ([]Fault, error) {
	p, faults, err := e.compile(ctx, source, false)
	if p != nil {
		faults = p.warnings
	}
	return faults, err
}
