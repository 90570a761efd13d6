package flow

import (
	"encoding/json"
	"maps"
)

// JSONSchema returns the JSON Schema (draft 2020-12) of a flow's document, for editors. It is made of the table by which documents are read.
// What depends on tools and other steps (names, types, expressions) only Engine.Lint can tell.
func JSONSchema() []byte {
	f := newFormat()
	root := mappingSchema(f.document, "A flow of Zhiyun: what it takes, and its steps.")
	step := mappingSchema(f.step, "One step. It has exactly one of "+listKinds(stepKinds)+".")
	var one, each []any
	for _, k := range stepKinds {
		one = append(one, map[string]any{"required": []any{string(k)}})
		var allowed []any
		for _, field := range f.step {
			if fits(field, k) {
				allowed = append(allowed, field.name)
			}
		}
		each = append(each, map[string]any{"if": map[string]any{"required": []any{string(k)}}, "then": map[string]any{"propertyNames": map[string]any{"enum": allowed}}})
	}
	step["oneOf"], step["allOf"] = one, each
	root["$schema"], root["title"] = "https://json-schema.org/draft/2020-12/schema", "Zhiyun flow"
	root["$defs"] = map[string]any{
		"steps": map[string]any{"type": "array", "items": refForm("step"), "minItems": 1},
		"step":  step, "param": mappingSchema(f.param, "A parameter."), "notify": mappingSchema(f.notify, "A notice."), "retry": mappingSchema(f.retry, "How often something is tried."),
		"undo": mappingSchema(f.undo, "How a step is taken back."), "case": mappingSchema(f.choice, "One way of a switch."), "approve": mappingSchema(f.approve, "A question to people."),
		"window": mappingSchema(f.window, "A time of the day on some days of the week."), "repeat": mappingSchema(f.repeat, "A loop with a bound."),
		"start": mappingSchema(f.starters, "Who may start a flow."), "handler": mappingSchema(f.handler, "What is done when a step has failed."),
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil // the table holds nothing that has no JSON form
	}
	return append(out, '\n')
}

// fits reports whether a step of a kind may have a field.
func fits(f field[Step], k kind) bool {
	for _, other := range stepKinds {
		if f.name == string(other) {
			return other == k
		}
	}
	if f.kinds == nil {
		return true
	}
	for _, one := range f.kinds {
		if one == k {
			return true
		}
	}
	return false
}

// mappingSchema is the schema of a mapping with the fields of a table.
func mappingSchema[T any](table []field[T], about string) map[string]any {
	properties, needs, apart := map[string]any{}, map[string]any{}, map[string]any{}
	var required []any
	for _, f := range table {
		form := maps.Clone(f.form)
		form["description"] = f.about
		properties[f.name] = form
		if f.must != "" {
			required = append(required, f.name)
		}
		for _, needed := range f.needs {
			needs[f.name] = []any{needed}
		}
		if f.apart != "" {
			apart[f.name] = map[string]any{"not": map[string]any{"required": []any{f.apart}}}
		}
	}
	out := map[string]any{"type": "object", "description": about, "properties": properties, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	if len(needs) > 0 {
		out["dependentRequired"] = needs
	}
	if len(apart) > 0 {
		out["dependentSchemas"] = apart
	}
	return out
}
