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
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// Effect is what a tool promises about being run again when it is not known whether it had its effect: its process
// or its engine died, or it ran out of time.
type Effect string

const (
	Pure   Effect = "pure"   // it changes nothing: run it again
	Keyed  Effect = "keyed"  // it does its work once per key: run it again with the same key
	Probe  Effect = "probe"  // its probe tool can tell: ask it, then run it again or take its answer
	Manual Effect = "manual" // nobody can tell but a person. The default.
)

// Manifest describes a tool.
type Manifest struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
	Stage string `json:"stage,omitempty"`
	// Command is the program and its arguments, never a shell line. A tool that runs only on devices may leave it
	// empty at the server, whose registry then serves for checks alone.
	Command []string `json:"command,omitempty"`
	// Input and Output are JSON Schemas of objects. Default: anything. Properties that a schema does not list are
	// refused in inputs, and cannot be referred to in outputs, unless it says "additionalProperties": true.
	Input  json.RawMessage `json:"input,omitempty"`
	Output json.RawMessage `json:"output,omitempty"`
	// Timeout of one attempt. Default: DefaultTimeout.
	Timeout time.Duration `json:"-"`
	// Effect decides what happens when an attempt's outcome is unknown. Default: Manual.
	Effect Effect `json:"effect,omitempty"`
	// Undo names the tool that takes this one's effect back. It gets this tool's input and, as "done", its output
	// (absent if unknown). It must be idempotent, and succeed when nothing was done. Default: none.
	Undo string `json:"undo,omitempty"`
	// Probe names the tool that Effect Probe asks. It gets the input and answers {"done": bool, "output": {...}}.
	Probe string `json:"probe,omitempty"`
	// OnDevice tools run on the device that the step names with "on", by its worker.
	OnDevice bool `json:"on_device,omitempty"`
	// Examples are inputs with the outputs to expect, for people and for tests.
	Examples []Example `json:"examples,omitempty"`
}

// Example is an input of a tool and the output to expect.
type Example struct {
	Title  string          `json:"title,omitempty"`
	Input  json.RawMessage `json:"input"`
	Output json.RawMessage `json:"output,omitempty"`
}

type manifestFields Manifest

// MarshalJSON writes the timeout as text.
func (m Manifest) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		manifestFields
		Timeout Duration `json:"timeout,omitempty"`
	}{manifestFields(m), Duration(m.Timeout)})
}

// UnmarshalJSON reads the timeout as text.
func (m *Manifest) UnmarshalJSON(data []byte) error {
	both := struct {
		*manifestFields
		Timeout Duration `json:"timeout"`
	}{manifestFields: (*manifestFields)(m)}
	if err := json.Unmarshal(data, &both); err != nil {
		return err
	}
	m.Timeout = time.Duration(both.Timeout)
	return nil
}

// Call is one attempt of a tool.
type Call struct {
	ID        string          `json:"id"` // of the attempt; unique, and the same when it is handed over again
	Execution string          `json:"execution"`
	Flow      string          `json:"flow,omitempty"`
	Step      string          `json:"step"`
	Item      int             `json:"item,omitempty"`
	Attempt   int             `json:"attempt"`
	Key       string          `json:"key"` // the same over all attempts of a step's item, and for its undo
	Device    string          `json:"device,omitempty"`
	Tool      string          `json:"tool"`
	Undo      bool            `json:"undo,omitempty"`
	Probe     bool            `json:"probe,omitempty"`
	Input     json.RawMessage `json:"input"`
	Timeout   time.Duration   `json:"timeout"`

	// Log receives what the tool writes to stderr, as it is written. May be nil. It must not block for long.
	Log func([]byte) `json:"-"`
}

// Result is how an attempt ended: with an output or an error.
type Result struct {
	Output json.RawMessage `json:"output,omitempty"`
	Error  *Error          `json:"error,omitempty"`
	Logs   string          `json:"logs,omitempty"` // the last bytes of stderr, at most MaxLogs
}

// Limits on what a tool hands back.
const (
	MaxOutput = 1 << 20 // bytes of output
	MaxLogs   = 8 << 10 // bytes of stderr that are kept
)

// tool is a registered manifest with what was made of it.
type tool struct {
	Manifest
	run           func(context.Context, Call, []string) Result // nil: known here, run elsewhere
	input, output *expr.Schema
	typed         bool               // a Go function: what it returns has its type
	accepts       *jsonschema.Schema // nil: anything
	returns       *jsonschema.Schema
}

// Tools is a registry of tools. Register everything first, then hand it to New, which reports what is
// wrong with it. It is safe for concurrent use.
type Tools struct {
	mu     sync.RWMutex // guards what follows
	tools  map[string]*tool
	faults []error
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
	found := t.get(name)
	if found == nil {
		return Manifest{}, false
	}
	return found.Manifest, true
}

// Err reports everything wrong with the registered tools: bad schemas, undo and probe tools that do not exist.
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

func (t *Tools) get(name string) *tool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tools[name]
}

// add checks a manifest and registers it.
func (t *Tools) add(m Manifest, run func(context.Context, Call, []string) Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := &tool{Manifest: m, run: run, input: expr.Map(nil), output: expr.Any}
	fail := func(format string, args ...any) {
		t.faults = append(t.faults, fmt.Errorf("tool %q: "+format, append([]any{m.Name}, args...)...))
	}
	if !toolName.MatchString(m.Name) {
		fail("a name is letters, digits, dots, dashes and underscores, and starts with a letter")
	}
	if t.tools[m.Name] != nil {
		fail("is registered twice")
		return
	}
	switch m.Effect {
	case "":
		one.Effect = Manual
	case Pure, Keyed, Probe, Manual:
	default:
		fail("effect %q is unknown; want pure, keyed, probe or manual", m.Effect)
	}
	if m.Timeout < 0 {
		fail("timeout %s is negative", m.Timeout)
	}
	if len(m.Input) > 0 {
		var err error
		if one.input, one.accepts, err = compileSchema(m.Name+"/input", m.Input, true); err != nil {
			fail("input: %v", err)
		}
	}
	if len(m.Output) > 0 {
		var err error
		if one.output, one.returns, err = compileSchema(m.Name+"/output", m.Output, false); err != nil {
			fail("output: %v", err)
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

// Run runs one attempt here and checks what it takes and returns. env is added to the environment of a process.
// It never panics with a tool and never fails otherwise than by the result's error.
func (t *Tools) Run(ctx context.Context, call Call, env []string) (result Result) {
	one := t.get(call.Tool)
	if one == nil || one.run == nil {
		return Result{Error: failure(CodeTool, "tool %s is not registered where it should run; register it and retry", call.Tool)}
	}
	if !call.Undo && !call.Probe {
		if err := validate(one.accepts, call.Input); err != nil {
			return Result{Error: failure(CodeInput, "the input of %s: %v", call.Tool, err)}
		}
	}
	timeout := call.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result = one.run(bounded, call, env)
	if result.Error != nil {
		// A tool that was stopped half way may or may not have had its effect, whatever it says.
		switch {
		case ctx.Err() != nil:
			result.Error = &Error{Code: CodeCancelled, Message: call.Tool + " was stopped", Unknown: true}
		case bounded.Err() != nil:
			result.Error = &Error{Code: CodeTimeout, Message: fmt.Sprintf("%s did not end within %s", call.Tool, timeout), Unknown: true}
		}
		return result
	}
	if len(result.Output) == 0 {
		result.Output = json.RawMessage("{}")
	}
	if call.Undo || call.Probe {
		return result
	}
	if one.typed && len(result.Output) <= MaxOutput {
		return result
	}
	if len(result.Output) > MaxOutput {
		return Result{Error: failure(CodeOutput, "%s returned %d bytes, at most %d are kept; return a reference instead", call.Tool, len(result.Output), MaxOutput), Logs: result.Logs}
	}
	if err := validate(one.returns, result.Output); err != nil {
		return Result{Error: failure(CodeOutput, "the output of %s: %v", call.Tool, err), Logs: result.Logs}
	}
	return result
}
