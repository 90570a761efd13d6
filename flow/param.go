package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// valueType is a parsed parameter type.
type valueType struct {
	kind    string // string, int, float, bool, any, list, map
	elem    *valueType
	secret  bool
	pattern *regexp.Regexp
}

// parseType reads string, int, float, bool, secret, any, list<T> and map<T>.
func parseType(text string) (*valueType, error) {
	text = strings.TrimSpace(text)
	switch text {
	case "string", "int", "float", "bool", "any":
		return &valueType{kind: text}, nil
	case "secret":
		return &valueType{kind: "string", secret: true}, nil
	}
	for _, kind := range []string{"list", "map"} {
		if inner, found := strings.CutPrefix(text, kind+"<"); found && strings.HasSuffix(inner, ">") {
			elem, err := parseType(strings.TrimSuffix(inner, ">"))
			if err != nil {
				return nil, err
			}
			if elem.secret {
				return nil, errors.New("a secret stands alone: give each secret its own parameter")
			}
			return &valueType{kind: kind, elem: elem}, nil
		}
	}
	return nil, fmt.Errorf("type %q is unknown; want string, int, float, bool, secret, any, list<T> or map<T>", text)
}

func (t *valueType) schema() *expr.Schema {
	switch t.kind {
	case "string":
		return expr.String
	case "int":
		return expr.Integer
	case "float":
		return expr.Number
	case "bool":
		return expr.Boolean
	case "list":
		return expr.List(t.elem.schema())
	case "map":
		return expr.Map(t.elem.schema())
	}
	return expr.Any
}

// accept checks a value against the type and returns it in normal form.
func (t *valueType) accept(value any) (any, error) {
	if value == nil && t.kind != "any" {
		return nil, fmt.Errorf("is null, want %s", t.name())
	}
	value = plain(value)
	mismatch := func() error {
		if t.secret {
			return errors.New("is no text, and a secret is one") // and not for the eyes of who reads errors
		}
		return fmt.Errorf("is %s, want %s", describe(value), t.name())
	}
	switch t.kind {
	case "string":
		if _, ok := value.(string); !ok {
			return nil, mismatch()
		}
	case "int":
		switch v := value.(type) {
		case int64:
		case float64:
			if v != math.Trunc(v) || math.Abs(v) >= 1<<53 {
				return nil, mismatch()
			}
			return int64(v), nil
		default:
			return nil, mismatch()
		}
	case "float":
		switch v := value.(type) {
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, mismatch()
			}
		case int64:
			return float64(v), nil
		default:
			return nil, mismatch()
		}
	case "bool":
		if _, ok := value.(bool); !ok {
			return nil, mismatch()
		}
	case "list":
		list, ok := value.([]any)
		if !ok {
			return nil, mismatch()
		}
		out := make([]any, len(list))
		for i, item := range list {
			var err error
			if out[i], err = t.elem.accept(item); err != nil {
				return nil, fmt.Errorf("entry %d %w", i, err)
			}
		}
		return out, nil
	case "map":
		object, ok := value.(map[string]any)
		if !ok {
			return nil, mismatch()
		}
		out := make(map[string]any, len(object))
		for _, key := range slices.Sorted(maps.Keys(object)) {
			item, err := t.elem.accept(object[key])
			if err != nil {
				return nil, fmt.Errorf("entry %q %w", key, err)
			}
			out[key] = item
		}
		return out, nil
	}
	return value, nil
}

func (t *valueType) name() string {
	switch {
	case t.secret:
		return "secret"
	case t.elem != nil:
		return t.kind + "<" + t.elem.name() + ">"
	}
	return t.kind
}

// plain brings what Go programs pass ([]string, map[string]int, typed ints) into the form that JSON decoding yields.
func plain(value any) any {
	switch v := value.(type) {
	case nil, string, bool, int64, float64:
		return v
	case int:
		return int64(v)
	case json.Number, json.Marshaler: // JSON as it stands, a time, and what else has a form of its own
		decoded, err := expr.Decode(mustJSON(value), nil)
		if err != nil {
			return value
		}
		return decoded
	}
	r := reflect.ValueOf(value)
	switch r.Kind() {
	case reflect.String:
		return r.String()
	case reflect.Bool:
		return r.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return r.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(r.Uint())
	case reflect.Float32, reflect.Float64:
		return r.Float()
	case reflect.Slice, reflect.Array:
		out := make([]any, r.Len())
		for i := range out {
			out[i] = plain(r.Index(i).Interface())
		}
		return out
	case reflect.Map:
		if r.Type().Key().Kind() == reflect.String {
			out := make(map[string]any, r.Len())
			for it := r.MapRange(); it.Next(); {
				out[it.Key().String()] = plain(it.Value().Interface())
			}
			return out
		}
	}
	decoded, err := expr.Decode(mustJSON(value), nil)
	if err != nil {
		return value
	}
	return decoded
}

func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		if v == "" {
			return "an empty text"
		}
		return "a text"
	case bool:
		return "a bool"
	case int64:
		return fmt.Sprintf("the int %d", v)
	case float64:
		return fmt.Sprintf("the float %v", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", value)
}

// accept checks a value against the parameter's type and constraints and returns it in normal form.
func (p *Param) accept(value any) (any, error) {
	value, err := p.value.accept(value)
	if err != nil {
		return nil, fmt.Errorf("parameter %q %w", p.Name, err)
	}
	size, unit := 0.0, ""
	switch v := value.(type) {
	case int64:
		size = float64(v)
	case float64:
		size = v
	case string:
		size, unit = float64(utf8.RuneCountInString(v)), " characters"
	case []any:
		size, unit = float64(len(v)), " entries"
	case map[string]any:
		size, unit = float64(len(v)), " entries"
	}
	if p.Min != nil && size < *p.Min {
		return nil, fmt.Errorf("parameter %q is %v%s, want at least %v", p.Name, size, unit, *p.Min)
	}
	if p.Max != nil && size > *p.Max {
		return nil, fmt.Errorf("parameter %q is %v%s, want at most %v", p.Name, size, unit, *p.Max)
	}
	if len(p.Enum) > 0 && !slices.ContainsFunc(p.Enum, func(one any) bool { return reflect.DeepEqual(one, value) }) {
		return nil, fmt.Errorf("parameter %q is not one of %v", p.Name, p.Enum)
	}
	if text, ok := value.(string); ok && p.value.pattern != nil && !p.value.pattern.MatchString(text) {
		return nil, fmt.Errorf("parameter %q does not match %q", p.Name, p.Pattern)
	}
	return value, nil
}

// long refuses a text that is longer than one may be of which the flow says nothing.
func (p *Param) long(value any) error {
	text, _ := value.(string)
	if size := utf8.RuneCountInString(text); p.Max == nil && size > MaxText {
		return fmt.Errorf("parameter %q is %d characters, want at most %d; a flow that takes more says so in its max", p.Name, size, MaxText)
	}
	return nil
}

// bind checks the parameters of a start and fills in defaults. It reports all faults at once.
func (d *Definition) bind(given map[string]any) (map[string]any, error) {
	var faults []error
	bound := make(map[string]any, len(d.Params))
	known := map[string]bool{}
	for i := range d.Params {
		p := &d.Params[i]
		known[p.Name] = true
		value, found := given[p.Name]
		switch {
		case found:
			value, err := p.accept(value)
			if err == nil {
				err = p.long(value)
			}
			if err != nil {
				faults = append(faults, err)
				continue
			}
			bound[p.Name] = value
		case p.Required:
			faults = append(faults, fmt.Errorf("parameter %q (%s) is required", p.Name, p.Type))
		default:
			bound[p.Name] = p.absent()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			faults = append(faults, fmt.Errorf("parameter %q is unknown to flow %s", name, d.Name))
		}
	}
	if len(faults) == 0 {
		if size := len(mustJSON(bound)); size > MaxParams {
			faults = append(faults, fmt.Errorf("the parameters are %d bytes as JSON, want at most %d; hand in where it lies, and have a tool read it there", size, MaxParams))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return bound, nil
}

// absent is what a parameter is of which nothing was said.
func (p *Param) absent() any {
	if p.Default != nil {
		return p.Default
	}
	return p.value.zero()
}

// unequal names the parameters of a start that are not those with which an execution was started, sorted. Secrets count as equal: the answer would tell whoever
// may start the flow whether he has guessed one.
func (d *Definition) unequal(given, started map[string]any) []string {
	out := []string{}
	known := map[string]bool{}
	for i := range d.Params {
		p := &d.Params[i]
		known[p.Name] = true
		value, found := given[p.Name]
		if p.value.secret {
			continue
		}
		if !found {
			value = p.absent()
		} else if accepted, err := p.accept(value); err == nil {
			value = accepted
		}
		if !bytes.Equal(mustJSON(value), mustJSON(started[p.Name])) {
			out = append(out, p.Name)
		}
	}
	for name := range given {
		if !known[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// zero is what a parameter without a value and a default is.
func (t *valueType) zero() any {
	switch t.kind {
	case "string":
		return ""
	case "int":
		return int64(0)
	case "float":
		return 0.0
	case "bool":
		return false
	case "list":
		return []any{}
	case "map":
		return map[string]any{}
	}
	return nil
}
