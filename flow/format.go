package flow

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// format is the one description of what a document may hold: the parser reads by it, and the JSON Schema and the page for people are
// made of it, so none of the three knows a field that the others do not.
type format struct {
	document []field[Definition]
	param    []field[paramSource]
	step     []field[Step]
	notify   []field[Notify]
	retry    []field[Retry]
	undo     []field[Undo]
	choice   []field[Case]
	approve  []field[Approve]
	window   []field[Window]
	repeat   []field[Repeat]
	starters []field[Starters]
	handler  []field[Step]
}

// field is one field of a mapping.
type field[T any] struct {
	name  string
	about string         // for people
	form  map[string]any // its JSON Schema
	codec[T]

	must  string   // why it has to be there; "" if it need not
	kinds []kind   // of steps that may have it; nil for all
	needs []string // fields without which it means nothing
	apart string   // a field beside which it means nothing
}

// The JSON Schemas that several fields have.
var (
	textForm     = map[string]any{"type": []any{"string", "number", "boolean"}}
	nameForm     = map[string]any{"type": "string", "pattern": stepName.String()}
	conditionFor = map[string]any{"type": []any{"string", "boolean"}}
	countForm    = map[string]any{"type": "integer", "minimum": 1, "maximum": maxCount}
	durationForm = map[string]any{"type": "string", "pattern": `^\s*([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)`}
	textsForm    = map[string]any{"type": "array", "items": textForm, "minItems": 1}
	mappingForm  = map[string]any{"type": "object"}
	levelForm    = map[string]any{"type": "integer", "minimum": 0, "maximum": 9}
	numberForm   = map[string]any{"type": "number"}
	boolForm     = map[string]any{"type": "boolean"}
	anyForm      = map[string]any{}
)

func refForm(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

func enumForm(values ...any) map[string]any { return map[string]any{"enum": values} }

// readFields reads a mapping by its table. It refuses keys that are unknown or said twice, and says what is missing.
func readFields[T any](d *document, node *yaml.Node, path string, into *T, table []field[T]) {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want a mapping of %s", listFields(table))
		return
	}
	prefix := ""
	if path != "" {
		d.places[path] = node
		prefix = path + "."
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := prefix + key.Value
		known := i / 2 // of branches, the table is the document's own, and may be long
		if known >= len(table) || table[known].name != key.Value {
			known = slices.IndexFunc(table, func(f field[T]) bool { return f.name == key.Value })
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(key, at, "want a name as the key")
		case seen[key.Value]:
			d.fault(key, at, "is said twice")
		case known < 0:
			names := make([]string, len(table))
			for i := range table {
				names[i] = table[i].name
			}
			d.fault(key, at, "%q is unknown here; known are %s%s", key.Value, listFields(table), meant(key.Value, names))
		case value.Kind == yaml.AliasNode:
			d.fault(value, at, "anchors and aliases are not part of the format; write the value out")
		default:
			d.places[at] = value
			table[known].read(d, into, value, at)
		}
		seen[key.Value] = true
	}
	for _, f := range table {
		at := d.places[prefix+f.name]
		switch {
		case !seen[f.name] && f.must != "":
			d.fault(node, prefix+f.name, "is missing; %s", f.must)
		case at == nil:
		case f.apart != "" && seen[f.apart]:
			d.fault(at, prefix+f.name, "does not go with %s", f.apart)
		}
	}
}

func listFields[T any](table []field[T]) string {
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// newFormat returns the format.
func newFormat() *format {
	return &format{
		document: documentFields(), param: paramFields(), step: stepFields(),
		notify: notifyFields(), retry: retryFields(), undo: undoFields(), choice: caseFields(), approve: approveFields(),
		window: windowFields(), repeat: repeatFields(), starters: starterFields(), handler: handlerFields(),
	}
}

func documentFields() []field[Definition] {
	return []field[Definition]{
		{name: "flow", must: "a document starts with flow: NAME", form: map[string]any{"type": "string", "pattern": flowName.String()},
			about: "The flow's name.",
			codec: codec[Definition]{
				func(d *document, into *Definition, n *yaml.Node, path string) {
					if into.Name = d.text(n, path); !flowName.MatchString(into.Name) {
						d.fault(n, path, "%q is not a flow's name: lower case letters, digits, dots, dashes and underscores, at most 63", into.Name)
					}
				},
				func(_ *format, from *Definition) *yaml.Node { return textNode(from.Name) },
			}},
		{name: "title", form: textForm, about: "What people read.", codec: asText(func(f *Definition) *string { return &f.Title })},
		{name: "params", form: map[string]any{"type": "object", "propertyNames": nameForm, "additionalProperties": map[string]any{"oneOf": []any{typeForm(), refForm("param")}}},
			about: "The parameters by name: a type, or a mapping with the type and what else is demanded of it.",
			codec: codec[Definition]{
				func(d *document, into *Definition, n *yaml.Node, path string) { into.Params = d.params(n, path) },
				func(f *format, from *Definition) *yaml.Node { return paramsNode(f, from.Params) },
			}},
		{name: "locks", form: textsForm, about: "What is held from an execution's start to its end, so that two never meet on it: texts that may hold expressions over params.",
			codec: asTexts(func(f *Definition) *[]string { return &f.Locks })},
		{name: "start", form: refForm("start"), about: "Who may start it; by default everybody who may start flows.",
			codec: asFields(func(f *Definition) **Starters { return &f.Start }, func(f *format) []field[Starters] { return f.starters }, Starters{})},
		{name: "priority", form: levelForm, about: fmt.Sprintf("Orders what waits for room: 9 is first, 0 last; by default %d.", DefaultPriority),
			codec: codec[Definition]{
				func(d *document, into *Definition, n *yaml.Node, path string) { into.Priority = d.level(n, path) },
				func(_ *format, from *Definition) *yaml.Node {
					if from.Priority == nil {
						return nil
					}
					return valueNode(int64(*from.Priority))
				},
			}},
		{name: "steps", must: "a flow has at least one step", form: refForm("steps"), about: "What is done, one step after another.",
			codec: asSteps(func(f *Definition) *[]Step { return &f.Steps })},
		{name: "output", form: mappingForm, about: "What an execution returns: to a step that runs the flow, and to who asks. Texts may hold expressions over params and the outputs of all steps.",
			codec: asMapping(func(f *Definition) *map[string]any { return &f.Output })},
	}
}

func starterFields() []field[Starters] {
	return []field[Starters]{
		{name: "by", must: "say who may start it", form: textsForm, about: "Actors, or role:NAME.",
			codec: asActors(func(s *Starters) *[]string { return &s.By })},
	}
}
