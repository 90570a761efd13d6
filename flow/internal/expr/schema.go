package expr

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Schema is the part of a JSON Schema that decides which expressions are well typed. What it does not
// understand ($ref, oneOf, ...) becomes Any, which fits everything and is checked when values are there.
type Schema struct {
	Type       string // "object", "array", "string", "integer", "number", "boolean", or "" for any
	Properties map[string]*Schema
	Required   []string
	Open       bool    // object: may have properties beyond those listed
	Extra      *Schema // object: type of the properties not listed; nil is any
	Items      *Schema // array; nil is any
}

// The scalar schemas.
var (
	Any     = &Schema{}
	String  = &Schema{Type: "string"}
	Integer = &Schema{Type: "integer"}
	Number  = &Schema{Type: "number"}
	Boolean = &Schema{Type: "boolean"}
)

// List returns the schema of a list.
func List(items *Schema) *Schema { return &Schema{Type: "array", Items: items} }

// Map returns the schema of an object with any keys.
func Map(values *Schema) *Schema { return &Schema{Type: "object", Open: true, Extra: values} }

// ParseSchema reads a JSON Schema as decoded by encoding/json.
func ParseSchema(doc any) *Schema {
	object, ok := doc.(map[string]any)
	if !ok {
		return Any
	}
	for _, key := range []string{"$ref", "oneOf", "anyOf", "allOf", "if", "$dynamicRef"} {
		if _, found := object[key]; found {
			return Any
		}
	}
	kind, _ := object["type"].(string)
	if kind == "" && object["properties"] != nil {
		kind = "object"
	}
	switch kind {
	case "string", "integer", "number", "boolean":
		return &Schema{Type: kind}
	case "array":
		return &Schema{Type: kind, Items: ParseSchema(object["items"])}
	case "object":
		s := &Schema{Type: kind}
		if properties, ok := object["properties"].(map[string]any); ok {
			s.Properties = make(map[string]*Schema, len(properties))
			for name, property := range properties {
				s.Properties[name] = ParseSchema(property)
			}
		}
		if required, ok := object["required"].([]any); ok {
			for _, name := range required {
				if name, ok := name.(string); ok {
					s.Required = append(s.Required, name)
				}
			}
		}
		switch extra := object["additionalProperties"].(type) {
		case bool:
			s.Open = extra
		case map[string]any:
			s.Open, s.Extra = true, ParseSchema(extra)
		default:
			// A schema that lists its properties means them: a name beside them is a slip. One that lists none takes any.
			s.Open = len(s.Properties) == 0
		}
		return s
	}
	return Any
}

func (s *Schema) String() string {
	if s == nil {
		return "any"
	}
	switch s.Type {
	case "":
		return "any"
	case "array":
		return "list<" + s.Items.String() + ">"
	case "object":
		if len(s.Properties) == 0 {
			return "map<" + s.Extra.String() + ">"
		}
		return "object{" + strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", ") + "}"
	case "integer":
		return "int"
	case "number":
		return "float"
	case "boolean":
		return "bool"
	}
	return s.Type
}

// Fits says why a value of type from cannot stand where type to is wanted; "" if it can.
func Fits(from, to *Schema) string {
	if from == nil || to == nil || from.Type == "" || to.Type == "" {
		return ""
	}
	if from.Type != to.Type {
		if from.Type == "integer" && to.Type == "number" {
			return ""
		}
		return fmt.Sprintf("has type %s, want %s", from, to)
	}
	switch to.Type {
	case "array":
		if why := Fits(from.Items, to.Items); why != "" {
			return fmt.Sprintf("has type %s, want %s", from, to)
		}
	case "object":
		for _, name := range slices.Sorted(maps.Keys(from.Properties)) {
			want, known := to.Properties[name]
			if !known {
				want = to.Extra
			}
			if why := Fits(from.Properties[name], want); why != "" {
				return fmt.Sprintf("property %q %s", name, why)
			}
		}
		for _, name := range to.Required {
			if _, found := from.Properties[name]; !found && !from.Open {
				return fmt.Sprintf("lacks property %q", name)
			}
		}
	}
	return ""
}

// Decode reads JSON into the values that expressions work on: whole numbers become int64, others float64; where
// the schema says number, a whole number becomes float64 as well.
func Decode(data []byte, schema *Schema) (any, error) {
	if value, ok := parse(data, schema); ok {
		return value, nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return Normal(value, schema), nil
}

// Normal brings a decoded JSON or YAML value into the form that Decode yields. It does not change its argument.
func Normal(value any, schema *Schema) any {
	if schema == nil {
		schema = Any
	}
	switch v := value.(type) {
	case json.Number:
		if whole, err := v.Int64(); err == nil && schema.Type != "number" {
			return whole
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return Normal(f, schema)
	case int:
		return Normal(int64(v), schema)
	case int64:
		if schema.Type == "number" {
			return float64(v)
		}
	case float64:
		if schema.Type == "integer" && v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = Normal(item, schema.Items)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			property, known := schema.Properties[name]
			if !known {
				property = schema.Extra
			}
			out[name] = Normal(item, property)
		}
		return out
	}
	return value
}
