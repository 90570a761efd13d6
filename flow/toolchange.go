package flow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// BrokenFlow is a version of a flow that a change of a tool would break.
type BrokenFlow struct {
	Flow    string  `json:"flow"`
	Version int     `json:"version"`
	Open    int     `json:"open,omitempty"` // executions of this version that have not ended
	Faults  []Fault `json:"faults"`
}

// BrokenBy tells which flows compile now and would not with a tool as the manifest says: of each flow the latest version, and those
// that open executions run.
func (e *Engine) BrokenBy(ctx context.Context, m Manifest) ([]BrokenFlow, error) {
	changed, err := e.config.Tools.with(m)
	if err != nil {
		return nil, err
	}
	latest, err := e.config.Store.Definitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("flow: list definitions: %w", err)
	}
	rows, err := e.config.Store.List(ctx, Filter{Open: true})
	if err != nil {
		return nil, fmt.Errorf("flow: list open executions: %w", err)
	}
	open := map[versionKey]int{}
	for _, row := range rows {
		open[versionKey{row.Flow, row.Version}]++
	}
	records := map[versionKey]DefinitionRecord{}
	for _, r := range latest {
		records[versionKey{r.Name, r.Version}] = r
	}
	for key := range open {
		if _, there := records[key]; there {
			continue
		}
		r, err := e.config.Store.Definition(ctx, key.name, key.version)
		if err != nil {
			return nil, fmt.Errorf("flow %s version %d: %w", key.name, key.version, err)
		}
		records[key] = r
	}
	out := []BrokenFlow{}
	for key, r := range records {
		if _, faults := compile(r.Source, changed); len(faults) > 0 {
			if _, before := compile(r.Source, e.config.Tools); len(before) == 0 {
				out = append(out, BrokenFlow{key.name, key.version, open[key], faults})
			}
		}
	}
	slices.SortFunc(out, func(a, b BrokenFlow) int {
		return cmp.Or(cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.Version, b.Version))
	})
	return out, nil
}

// Replace puts a tool in the place of the one of its name, or adds it, in a registry that engines use already: attempts that begin from now on run it.
// What runs goes on with what it was started as, and so do executions with the schemas that they were compiled against. A tool that is a Go function is not replaced.
func (e *Engine) Replace(m Manifest) error {
	if err := e.config.Tools.replace(m); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.latest)
	clear(e.versions)
	return nil
}

// with returns a copy of the registry with another tool in it.
func (t *Tools) with(m Manifest) (*Tools, error) {
	t.mu.RLock()
	out := &Tools{tools: maps.Clone(t.tools)}
	t.mu.RUnlock()
	delete(out.tools, m.Name)
	out.Exec(m)
	err := out.Err()
	if one := out.get(m.Name); one != nil {
		err = errors.Join(err, one.wrong)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return out, nil
}

func (t *Tools) replace(m Manifest) error {
	changed, err := t.with(m)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.tools[m.Name]
	if old != nil && old.typed {
		return fmt.Errorf("%w: tool %s is built in; give yours another name", ErrInvalid, m.Name)
	}
	t.tools[m.Name] = changed.tools[m.Name]
	for _, p := range t.pools { // they stay known to Close, which waits for them
		if p.program.name == m.Name {
			p.shut()
		}
	}
	t.pools = append(t.pools, changed.pools...)
	return nil
}
