package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
)

// ToolOption changes the manifest of a Go function tool. What has no option here is set by a function of the caller's:
//
//	func(m *flow.Manifest) { m.Title = "Acquire devices" }
type ToolOption func(*Manifest)

// WithEffect declares the tool's effect class. Default: Manual.
func WithEffect(effect Effect) ToolOption { return func(m *Manifest) { m.Effect = effect } }

// WithUndo names the tool that takes the effect back.
func WithUndo(tool string) ToolOption { return func(m *Manifest) { m.Undo = tool } }

// WithProbe names the tool that knows whether the effect happened, and sets Effect to Probe.
func WithProbe(tool string) ToolOption {
	return func(m *Manifest) { m.Effect, m.Probe = Probe, tool }
}

// WithTimeout bounds one attempt, where the step says nothing else. Default: DefaultTimeout.
func WithTimeout(timeout time.Duration) ToolOption { return func(m *Manifest) { m.Timeout = timeout } }

// Func registers a Go function as a tool. Its input and output schemas are those of the types In and Out (see
// SchemaOf). The function finds its Call in the context with CallFrom, writes logs with Logf, and returns a *Error to set a
// code or to say that another attempt is pointless (Fatal). It must end soon after its context does.
func Func[In, Out any](tools *Tools, name string, fn func(context.Context, In) (Out, error), options ...ToolOption) {
	m := Manifest{Name: name, Input: SchemaOf[In](), Output: SchemaOf[Out]()}
	for _, option := range options {
		option(&m)
	}
	tools.add(m, func(ctx context.Context, call Call, _ []string) (result Result) {
		var in In
		if err := json.Unmarshal(call.Input, &in); err != nil {
			return Result{Error: failure(CodeInput, "the input of %s: %v", name, err)}
		}
		within := &attemptContext{Context: ctx, call: call, logs: tail{limit: MaxLogs, forward: call.Log}}
		logs := &within.logs
		defer func() {
			if r := recover(); r != nil {
				fmt.Fprintf(logs, "%s", debug.Stack())
				result = Result{Error: &Error{Code: "panic", Message: fmt.Sprint(r), Unknown: true}}
			}
			result.Logs = logs.String()
		}()
		out, err := fn(within, in)
		if err != nil {
			return Result{Error: asError(err)}
		}
		fillNil(reflect.ValueOf(&out).Elem(), 0)
		data, err := json.Marshal(out)
		if err != nil {
			return Result{Error: failure(CodeOutput, "the output of %s: %v", name, err)}
		}
		return Result{Output: data}
	})
	tools.mu.Lock()
	defer tools.mu.Unlock()
	if one := tools.tools[name]; one != nil {
		one.typed = true
	}
}

// fillNil turns nil slices and maps into empty ones, which encoding/json would write as null, and which an
// expression could not take the size of.
func fillNil(v reflect.Value, depth int) {
	if depth > 16 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		if v.IsNil() && v.Type() != rawType {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		switch v.Type().Elem().Kind() {
		case reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
			for i := range v.Len() {
				fillNil(v.Index(i), depth+1)
			}
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			fillNil(v.Elem(), depth+1)
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return
		}
		for i := range v.NumField() {
			fillNil(v.Field(i), depth+1)
		}
	}
}

// Fatal marks an error as one that another attempt would meet again.
func Fatal(err error) error {
	e := *asError(err)
	e.Permanent = true
	return &e
}

func asError(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{Code: "failed", Message: err.Error()}
}

type callKey struct{}

// attemptContext is the context of a function tool, with its call and its log.
type attemptContext struct {
	context.Context
	call Call
	logs tail
}

// Value implements context.Context.
func (c *attemptContext) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// CallFrom returns the attempt within which a function tool runs: its key, execution, step and so on.
func CallFrom(ctx context.Context) (Call, bool) {
	within, ok := ctx.Value(callKey{}).(*attemptContext)
	if !ok {
		return Call{}, false
	}
	return within.call, true
}

// Logf writes a line to the log of the attempt within which a function tool runs. Elsewhere it does nothing.
func Logf(ctx context.Context, format string, args ...any) {
	if within, ok := ctx.Value(callKey{}).(*attemptContext); ok {
		fmt.Fprintf(&within.logs, format+"\n", args...)
	}
}

// SchemaOf returns the JSON Schema of T, as encoding/json writes it. A struct's field is required unless its tag says omitempty
// or omitzero or it is a pointer; the tag `enum:"a,b"` lists the texts allowed and `doc:"..."` describes the field.
func SchemaOf[T any]() json.RawMessage {
	return mustJSON(schemaOf(reflect.TypeFor[T](), 0))
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	rawType     = reflect.TypeFor[json.RawMessage]()
	textMarshal = reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
	jsonMarshal = reflect.TypeFor[json.Marshaler]()
)

func schemaOf(t reflect.Type, depth int) map[string]any {
	if depth > 16 || t == rawType {
		return map[string]any{}
	}
	nullable := false
	for t.Kind() == reflect.Pointer {
		t, nullable = t.Elem(), true
	}
	switch {
	case t == timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(jsonMarshal) || reflect.PointerTo(t).Implements(jsonMarshal):
		return map[string]any{}
	case t.Implements(textMarshal) || reflect.PointerTo(t).Implements(textMarshal):
		return map[string]any{"type": "string"}
	}
	var schema map[string]any
	switch t.Kind() {
	case reflect.String:
		schema = map[string]any{"type": "string"}
	case reflect.Bool:
		schema = map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		schema = map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		schema = map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		schema = map[string]any{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return map[string]any{"type": "string"}
		}
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), depth+1)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), depth+1)}
	case reflect.Struct:
		properties, required := map[string]any{}, []any{}
		structFields(t, depth, properties, &required)
		schema = map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
		if len(required) > 0 {
			schema["required"] = required
		}
	default:
		return map[string]any{}
	}
	if nullable && t.Kind() != reflect.Struct {
		schema["type"] = []any{schema["type"], "null"}
	}
	return schema
}

func structFields(t reflect.Type, depth int, properties map[string]any, required *[]any) {
	for i := range t.NumField() {
		field := t.Field(i)
		tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if tag == "-" && options == "" {
			continue
		}
		if field.Anonymous && tag == "" {
			inner := field.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				structFields(inner, depth, properties, required)
				continue
			}
		}
		if !field.IsExported() {
			continue
		}
		name := field.Name
		if tag != "" {
			name = tag
		}
		property := schemaOf(field.Type, depth+1)
		if doc := field.Tag.Get("doc"); doc != "" {
			property["description"] = doc
		}
		if list := field.Tag.Get("enum"); list != "" {
			values := []any{}
			for _, one := range strings.Split(list, ",") {
				values = append(values, one)
			}
			property["enum"] = values
		}
		properties[name] = property
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") && field.Type.Kind() != reflect.Pointer {
			*required = append(*required, name)
		}
	}
}
