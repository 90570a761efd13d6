package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// tool is a registered manifest with what was made of it.
type tool struct {
	Manifest
	run   func(context.Context, Call, []string) Result // nil: known here, run elsewhere
	typed bool                                         // a Go function: what it returns has its type

	once          sync.Once // prepares what follows
	input, output *expr.Schema
	accepts       *jsonschema.Schema // nil: anything
	returns       *jsonschema.Schema
	wrong         error // with the schemas
}

// prepare compiles the schemas, once. It takes most of a millisecond: hundreds of tools are prepared as they are needed.
func (one *tool) prepare() {
	one.once.Do(func() {
		one.input, one.output = expr.Map(nil), expr.Any
		for _, side := range []struct {
			name     string
			source   json.RawMessage
			closed   bool
			form     **expr.Schema
			compiled **jsonschema.Schema
		}{{"input", one.Input, true, &one.input, &one.accepts}, {"output", one.Output, false, &one.output, &one.returns}} {
			if len(side.source) == 0 {
				continue
			}
			var err error
			if *side.form, *side.compiled, err = compileSchema(one.Name+"/"+side.name, side.source, side.closed); err != nil {
				one.wrong = errors.Join(one.wrong, fmt.Errorf("%s: %w", side.name, err))
			}
		}
	})
}

// Tools is a registry of tools. Register everything first, then hand it to New, which reports what is
// wrong with it. It is safe for concurrent use.
type Tools struct {
	mu     sync.RWMutex // guards what follows
	tools  map[string]*tool
	faults []error
	pools  []*pool
}

// fault keeps what is wrong for Err.
func (t *Tools) fault(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, fmt.Errorf(format, args...))
}

// Close ends the processes of resident tools, once those that serve a call have answered it, and waits for them. Later calls of resident tools fail.
// It may be called twice.
func (t *Tools) Close() {
	t.mu.RLock()
	pools := slices.Clone(t.pools)
	t.mu.RUnlock()
	for _, p := range pools {
		p.close()
	}
}

// NewTools returns an empty registry.
func NewTools() *Tools { return &Tools{tools: map[string]*tool{}} }

// Manifests lists the registered tools by name.
func (t *Tools) Manifests() []Manifest {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]Manifest, 0, len(t.tools))
	for _, name := range slices.Sorted(maps.Keys(t.tools)) {
		out = append(out, t.tools[name].Manifest)
	}
	return out
}

// Manifest returns the manifest of one tool.
func (t *Tools) Manifest(name string) (Manifest, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := t.tools[name]
	if found == nil {
		return Manifest{}, false
	}
	return found.Manifest, true
}

// Err reports everything wrong with the registered tools: bad schemas, undo and probe tools that do not exist. The schemas of tools that lie in folders are looked at when
// a flow first names the tool, which is told what is wrong with them.
func (t *Tools) Err() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	faults := slices.Clone(t.faults)
	for _, name := range slices.Sorted(maps.Keys(t.tools)) {
		one := t.tools[name]
		if one.Undo != "" && t.tools[one.Undo] == nil {
			faults = append(faults, fmt.Errorf("tool %s: its undo tool %q is not registered", name, one.Undo))
		}
		if one.Effect == Probe && t.tools[one.Probe] == nil {
			faults = append(faults, fmt.Errorf("tool %s: effect probe needs a probe tool; %q is not registered", name, one.Probe))
		}
	}
	return errors.Join(faults...)
}

// get returns a tool, prepared; nil if there is none.
func (t *Tools) get(name string) *tool {
	t.mu.RLock()
	one := t.tools[name]
	t.mu.RUnlock()
	if one != nil {
		one.prepare()
	}
	return one
}

// add checks a manifest and registers it.
func (t *Tools) add(m Manifest, run func(context.Context, Call, []string) Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := &tool{Manifest: m, run: run}
	fail := func(format string, args ...any) {
		t.faults = append(t.faults, fmt.Errorf("tool %q: "+format, append([]any{m.Name}, args...)...))
	}
	m.check(fail)
	if t.tools[m.Name] != nil {
		fail("is registered twice")
		return
	}
	if m.Effect == "" {
		one.Effect = Manual
	}
	if m.Dir == "" { // one of few, by code: its schemas are held to be right at once
		if one.prepare(); one.wrong != nil {
			fail("%w", one.wrong)
		}
	}
	t.tools[m.Name] = one
}

func compileSchema(name string, source json.RawMessage, closed bool) (*expr.Schema, *jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		return expr.Any, nil, fmt.Errorf("not JSON: %w", err)
	}
	if closed {
		closeObjects(doc)
	}
	url := "zhiyun://tool/" + name
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource(url, doc); err != nil {
		return expr.Any, nil, fmt.Errorf("not a JSON Schema: %w", err)
	}
	compiled, err := compiler.Compile(url)
	if err != nil {
		return expr.Any, nil, fmt.Errorf("not a JSON Schema: %w", err)
	}
	return expr.ParseSchema(doc), compiled, nil
}

// closeObjects makes a schema that lists properties refuse others, unless it speaks of them itself.
func closeObjects(doc any) {
	switch v := doc.(type) {
	case map[string]any:
		_, listed := v["properties"].(map[string]any)
		_, spoken := v["additionalProperties"]
		for _, key := range []string{"allOf", "anyOf", "oneOf", "$ref", "patternProperties", "unevaluatedProperties"} {
			if _, found := v[key]; found {
				spoken = true
			}
		}
		if listed && !spoken {
			v["additionalProperties"] = false
		}
		for _, inner := range v {
			closeObjects(inner)
		}
	case []any:
		for _, inner := range v {
			closeObjects(inner)
		}
	}
}

// validate says what is wrong with a JSON document; nil if it is fine.
func validate(schema *jsonschema.Schema, data json.RawMessage) error {
	if schema == nil || proves(schema, data) {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := schema.Validate(value); err != nil {
		var problem *jsonschema.ValidationError
		if errors.As(err, &problem) {
			return errors.New(leaf(problem))
		}
		return err
	}
	return nil
}

// leaf returns the innermost complaint of a validation, which is the one that helps.
func leaf(problem *jsonschema.ValidationError) string {
	for len(problem.Causes) > 0 {
		problem = problem.Causes[0]
	}
	text := problem.Error()
	if _, rest, found := strings.Cut(text, "\n- "); found {
		text = rest
	}
	return text
}
