package device

import (
	"encoding/json"
	"reflect"
	"strings"
)

// schema describes a struct as a JSON Schema (2020-12): fields by their json names, required unless
// omitempty, with their doc tags. With loose nothing is required.
func schema(t reflect.Type, loose bool) json.RawMessage {
	text, err := json.Marshal(schemaOf(t, loose))
	if err != nil {
		return json.RawMessage(`{}`) // maps of strings, lists and maps always marshal
	}
	return text
}

func schemaOf(t reflect.Type, loose bool) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		s := schemaOf(t.Elem(), true)
		s["type"] = []string{s["type"].(string), "null"}
		return s
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), loose)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), loose)}
	}
	properties, required := map[string]any{}, []string{}
	fields(t, func(name string, f reflect.StructField, optional bool) {
		s := schemaOf(f.Type, loose)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		if enum, ok := f.Tag.Lookup("enum"); ok {
			s["enum"] = strings.Split(enum, ",")
		}
		properties[name] = s
		if !optional && !loose {
			required = append(required, name)
		}
	})
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// fields visits the JSON fields of a struct, those of embedded structs too.
func fields(t reflect.Type, visit func(name string, f reflect.StructField, optional bool)) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			fields(f.Type, visit)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		visit(name, f, strings.Contains(options, "omitempty"))
	}
}
