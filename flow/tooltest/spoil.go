package tooltest

import "encoding/json"

// spoil makes inputs that the schema refuses from one that it takes.
func spoil(schema, good json.RawMessage) map[string]json.RawMessage {
	out := map[string]json.RawMessage{"not JSON": json.RawMessage(`{"`), "not an object": json.RawMessage(`[]`)}
	var form struct {
		Properties map[string]struct {
			Type any   `json:"type"`
			Enum []any `json:"enum"`
		} `json:"properties"`
		Required   []string `json:"required"`
		Additional any      `json:"additionalProperties"`
	}
	var input map[string]any
	if len(schema) == 0 || json.Unmarshal(schema, &form) != nil || json.Unmarshal(good, &input) != nil {
		return out
	}
	change := func(name string, with func(map[string]any)) {
		changed := make(map[string]any, len(input)+1)
		for key, value := range input {
			changed[key] = value
		}
		with(changed)
		if data, err := json.Marshal(changed); err == nil {
			out[name] = data
		}
	}
	for _, name := range form.Required {
		change("without "+name, func(m map[string]any) { delete(m, name) })
	}
	for name, property := range form.Properties {
		var wrong any
		switch property.Type {
		case "string", "array", "object":
			wrong = 12345
		case "integer", "number", "boolean":
			wrong = "twelve"
		default:
			continue
		}
		change(name+" of another type", func(m map[string]any) { m[name] = wrong })
	}
	if form.Properties != nil && (form.Additional == nil || form.Additional == false) {
		change("with what it does not know", func(m map[string]any) { m["zhiyun_unknown_field"] = true })
	}
	return out
}
