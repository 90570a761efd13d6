package cmdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
)

// ListOptions chooses a page of a listing.
type ListOptions struct {
	// Filter is a CEL expression over the object's fields by their document names, such as
	// state == "idle" && labels.rack == "a1". An object for which it cannot be computed does not match.
	Filter string
	Limit  int    // at most so many; 0: all
	After  string // the name after which the page begins
}

// List returns objects of a kind in name order, and the After of the next page: empty if this was the last.
func (db *DB) List(kind Kind, options ListOptions) ([]Object, string, error) {
	if err := readable(kind); err != nil {
		return nil, "", err
	}
	match, err := compileFilter(kind, options.Filter)
	if err != nil {
		return nil, "", err
	}
	var out []Object
	for object := range db.view().from(kind, options.After) {
		name := object.Ref().Name
		if name <= options.After || !match(object) {
			continue
		}
		if options.Limit > 0 && len(out) == options.Limit {
			return out, out[len(out)-1].Ref().Name, nil
		}
		out = append(out, object)
	}
	return out, "", nil
}

func compileFilter(kind Kind, expression string) (func(Object) bool, error) {
	if expression == "" {
		return func(Object) bool { return true }, nil
	}
	t := reflect.TypeOf(kindTable[kindOrder(kind)].table.empty()).Elem()
	names := fieldNames(t)
	options := make([]cel.EnvOption, len(names))
	for i, name := range names {
		options[i] = cel.Variable(name, cel.DynType)
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("cmdb: filter on %s: %w", kind, err)
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%w: filter %q on %s: %w", ErrRequest, clip(expression), kind, issues.Err())
	}
	program, err := env.Program(ast, cel.CostLimit(100_000))
	if err != nil {
		return nil, fmt.Errorf("%w: filter %q on %s: %w", ErrRequest, clip(expression), kind, err)
	}
	return func(object Object) bool {
		out, _, err := program.Eval(fieldValues(object, names))
		if err != nil {
			return false
		}
		yes, ok := out.Value().(bool)
		return ok && yes
	}, nil
}

// fieldValues are the object's fields as CEL sees them: those left out by JSON as their zero value.
func fieldValues(object Object, names []string) map[string]any {
	values := tree(object)
	v := reflect.ValueOf(object).Elem()
	for i, name := range names {
		switch field := v.Field(i); field.Kind() {
		case reflect.String:
			values[name] = field.String()
		case reflect.Int, reflect.Int64:
			values[name] = field.Int()
		case reflect.Float64:
			values[name] = field.Float()
		case reflect.Bool:
			values[name] = field.Bool()
		case reflect.Slice:
			if field.Len() == 0 {
				values[name] = []any{}
			}
		default:
			if _, ok := values[name]; !ok {
				values[name] = map[string]any{}
			}
		}
		values[name] = plain(values[name])
	}
	return values
}

// plain turns the numbers of a tree into what CEL computes with.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // written by encoding/json
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = plain(v[key])
		}
	}
	return v
}

// tree is an object as plain maps and lists, without what the DB itself keeps in it.
func tree(o Object) map[string]any {
	var m map[string]any
	data, err := json.Marshal(o)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		err = decoder.Decode(&m)
	}
	if err != nil || m == nil { // no Object fails to marshal
		m = map[string]any{}
	}
	delete(m, "meta")
	return m
}
