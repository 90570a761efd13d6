package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// program returns a version of a flow to start, 0 for the latest.
func (e *Engine) program(ctx context.Context, name string, version int) (*program, error) {
	e.mu.Lock()
	p := e.latest[name]
	e.mu.Unlock()
	if p != nil && version == 0 {
		return p, nil
	}
	return e.version(ctx, name, version)
}

// version returns a version of a flow, 0 for the latest, compiled.
func (e *Engine) version(ctx context.Context, name string, version int, calling ...versionKey) (*program, error) {
	e.mu.Lock()
	p := e.versions[versionKey{name, version}]
	e.mu.Unlock()
	if p != nil {
		return p, nil
	}
	r, err := e.config.Store.Definition(ctx, name, version)
	switch {
	case version == 0 && errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%w: no flow is called %q", ErrNotFound, name)
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%w: flow %q has no version %d", ErrNotFound, name, version)
	}
	if err != nil {
		return nil, fmt.Errorf("read flow %s: %w", name, err)
	}
	if version == 0 { // which it is may have been forgotten, and what it says not
		e.mu.Lock()
		if p = e.versions[versionKey{name, r.Version}]; p != nil {
			e.latest[name] = p
		}
		e.mu.Unlock()
		if p != nil {
			return p, nil
		}
	}
	p, faults, err := e.compile(ctx, r.Source, true, calling...)
	if err != nil {
		return nil, fmt.Errorf("read flow %s: %w", name, err)
	}
	if len(faults) > 0 {
		// What it calls may have changed since it was saved: that is found out when it is called.
		p, faults = compile(r.Source, e.config.Tools)
	}
	if len(faults) > 0 {
		return nil, &DefinitionError{name, faults}
	}
	p.Version, p.SavedAt = r.Version, r.SavedAt
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(p)
	if version == 0 && (e.latest[name] == nil || e.latest[name].Version < r.Version) {
		e.latest[name] = p
	}
	return p, nil
}

// maxVersions bounds the compiled versions that are kept beside the latest of each flow. What is compiled again is that of executions which come back to
// memory after so many others.
const maxVersions = 256

// keep keeps a compiled version. The caller holds the mutex.
func (e *Engine) keep(p *program) {
	for key := range e.versions { // any: those in use are the executions' own
		if len(e.versions) < maxVersions {
			break
		}
		delete(e.versions, key)
	}
	e.versions[versionKey{p.Name, p.Version}] = p
}

// definition returns a version of a flow, which need not compile.
func (e *Engine) definition(ctx context.Context, name string, version int) (*Definition, error) {
	p, err := e.version(ctx, name, version)
	if err == nil {
		return &p.Definition, nil
	}
	if errors.Is(err, ErrNotFound) {
		return nil, err
	}
	r, err := e.config.Store.Definition(ctx, name, version)
	if err != nil {
		return nil, fmt.Errorf("read flow %s version %d: %w", name, version, err)
	}
	d := parseStored(r.Source)
	d.Version, d.SavedAt = r.Version, r.SavedAt
	return &d.Definition, nil
}

// Save checks a document and stores it as the next version of its flow. A document equal to the latest version is not
// stored again. What is wrong with it is a *DefinitionError.
func (e *Engine) Save(ctx context.Context, source []byte) (Definition, error) {
	p, faults, err := e.compile(ctx, source, false)
	if err != nil {
		return Definition{}, fmt.Errorf("flow: save: %w", err)
	}
	if len(faults) > 0 {
		d := parse(source)
		return Definition{}, &DefinitionError{d.Name, faults}
	}
	for {
		last, err := e.config.Store.Definition(ctx, p.Name, 0)
		switch {
		case err == nil && last.Digest == p.Digest:
			p.Version, p.SavedAt = last.Version, last.SavedAt
			return p.Definition, nil
		case err == nil || errors.Is(err, ErrNotFound):
			p.Version, p.SavedAt = last.Version+1, now()
		default:
			return Definition{}, fmt.Errorf("flow: save %s: %w", p.Name, err)
		}
		err = e.config.Store.PutDefinition(ctx, DefinitionRecord{p.Name, p.Version, p.Digest, p.Source, p.SavedAt})
		if errors.Is(err, ErrExists) {
			continue // another save was faster
		}
		if err != nil {
			return Definition{}, fmt.Errorf("flow: save %s: %w", p.Name, err)
		}
		e.mu.Lock()
		e.keep(p)
		if last := e.latest[p.Name]; last == nil || last.Version < p.Version { // another save may have been faster here, too
			e.latest[p.Name] = p
		}
		e.mu.Unlock()
		return p.Definition, nil
	}
}

// Definitions returns the latest version of each flow, by name.
func (e *Engine) Definitions(ctx context.Context) ([]Definition, error) {
	records, err := e.config.Store.Definitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("flow: list definitions: %w", err)
	}
	out := make([]Definition, 0, len(records))
	for _, r := range records {
		d := parseStored(r.Source)
		d.Version, d.SavedAt = r.Version, r.SavedAt
		out = append(out, d.Definition)
	}
	return out, nil
}

// Definition returns a version of a flow, 0 for the latest, or ErrNotFound.
func (e *Engine) Definition(ctx context.Context, name string, version int) (Definition, error) {
	d, err := e.definition(ctx, name, version)
	if err != nil {
		return Definition{}, fmt.Errorf("flow: %w", err)
	}
	out := *d
	out.Steps = slices.Clone(out.Steps)
	return out, nil
}
