package flow

import (
	"math"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// paramSource is a parameter with the places of what is checked once all of it has been read.
type paramSource struct {
	Param
	preset, choices *yaml.Node
}

func typeForm() map[string]any {
	return map[string]any{"type": "string", "pattern": `^\s*((list|map)<)*(string|int|float|bool|secret|any)>*\s*$`}
}

func asNumber(at func(*paramSource) **float64) codec[paramSource] {
	return codec[paramSource]{
		func(d *document, into *paramSource, n *yaml.Node, path string) {
			var value float64
			if err := n.Decode(&value); err != nil || (n.Tag != "!!int" && n.Tag != "!!float") || math.IsNaN(value) {
				d.fault(n, path, "want a number")
				return
			}
			*at(into) = &value
		},
		func(_ *format, from *paramSource) *yaml.Node {
			value := *at(from)
			switch {
			case value == nil:
				return nil
			case *value == math.Trunc(*value) && math.Abs(*value) < 1<<53:
				return valueNode(int64(*value))
			}
			return valueNode(*value)
		},
	}
}

func paramFields() []field[paramSource] {
	return []field[paramSource]{
		{name: "type", form: typeForm(), about: "string (the default), int, float, bool, secret, any, list<T> or map<T>.", codec: asText(func(p *paramSource) *string { return &p.Type })},
		{name: "title", form: textForm, about: "What people read.", codec: asText(func(p *paramSource) *string { return &p.Title })},
		{name: "required", form: boolForm, about: "A start has to say it.",
			codec: codec[paramSource]{
				func(d *document, into *paramSource, n *yaml.Node, path string) {
					if err := n.Decode(&into.Required); err != nil || n.Tag != "!!bool" {
						d.fault(n, path, "want true or false")
					}
				},
				func(_ *format, from *paramSource) *yaml.Node {
					if !from.Required {
						return nil
					}
					return valueNode(true)
				},
			}},
		{name: "default", form: anyForm, about: "What it is if a start does not say it; by default nothing of its type: 0, an empty text, list or map, false.",
			codec: codec[paramSource]{
				func(d *document, into *paramSource, n *yaml.Node, path string) {
					into.preset, into.Default = n, d.value(n, path, 0)
				},
				func(_ *format, from *paramSource) *yaml.Node {
					if from.Default == nil {
						return nil
					}
					return valueNode(from.Default)
				},
			}},
		{name: "min", form: numberForm, about: "The least number, or the least length of a text, list or map.", codec: asNumber(func(p *paramSource) **float64 { return &p.Min })},
		{name: "max", form: numberForm, about: "The greatest number, or length; of a text by default " + strconv.Itoa(MaxText) + " characters.", codec: asNumber(func(p *paramSource) **float64 { return &p.Max })},
		{name: "enum", form: map[string]any{"type": "array", "minItems": 1}, about: "The values that are allowed.",
			codec: codec[paramSource]{
				func(d *document, into *paramSource, n *yaml.Node, path string) {
					into.choices = n
					list, ok := d.value(n, path, 0).([]any)
					if !ok || len(list) == 0 {
						d.fault(n, path, "want a list of the values allowed")
					}
					into.Enum = list
				},
				func(_ *format, from *paramSource) *yaml.Node {
					if len(from.Enum) == 0 {
						return nil
					}
					return valueNode(from.Enum)
				},
			}},
		{name: "pattern", form: map[string]any{"type": "string"}, about: "A regular expression (RE2) that a whole text has to match.", codec: asText(func(p *paramSource) *string { return &p.Pattern })},
	}
}

func (d *document) params(node *yaml.Node, path string) []Param {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want a mapping of parameter names to types")
		return nil
	}
	var out []Param
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := path + "." + key.Value
		if seen[key.Value] {
			d.fault(key, at, "is said twice")
			continue
		}
		seen[key.Value] = true
		if !stepName.MatchString(key.Value) || slices.Contains(celReserved, key.Value) {
			d.fault(key, at, "%q is not a parameter's name: lower case letters, digits and underscores, and no word of CEL's", key.Value)
		}
		if value.Kind == yaml.AliasNode {
			d.fault(value, at, "anchors and aliases are not part of the format; write the value out")
			continue
		}
		out = append(out, d.param(key, value, at))
	}
	return out
}

func (d *document) param(key, node *yaml.Node, path string) Param {
	p := paramSource{Param: Param{Name: key.Value, Type: "string"}}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		p.Type = node.Value // the short form, name: type
	} else {
		readFields(d, node, path, &p, d.format.param)
	}
	d.finishParam(&p.Param, path, node, p.preset, p.choices)
	return p.Param
}

func (d *document) finishParam(p *Param, path string, node, defaultNode, enumNode *yaml.Node) {
	var err error
	if p.value, err = parseType(p.Type); err != nil {
		at := d.places[path+".type"]
		if at == nil {
			at = node
		}
		d.fault(at, path+".type", "%v", err)
		p.value = &valueType{kind: "any"}
		return
	}
	p.Type = p.value.name()
	if p.Pattern != "" {
		if p.value.pattern, err = regexp.Compile(`^(?:` + p.Pattern + `)$`); err != nil {
			d.fault(d.places[path+".pattern"], path+".pattern", "%v", err)
		} else if p.value.kind != "string" {
			d.fault(d.places[path+".pattern"], path+".pattern", "a pattern is for a string, this is %s", p.Type)
		}
	}
	if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
		d.fault(d.places[path+".min"], path+".min", "%v is more than max, %v", *p.Min, *p.Max)
	}
	for i, one := range p.Enum {
		if p.Enum[i], err = p.value.accept(one); err != nil {
			d.fault(enumNode, path+".enum", "entry %d %v", i, err)
		}
	}
	if defaultNode != nil {
		switch {
		case p.Required:
			d.fault(defaultNode, path+".default", "a required parameter has no default")
		case p.value.secret:
			d.fault(defaultNode, path+".default", "a secret has no default: documents are no place for secrets")
		default:
			if p.Default, err = p.accept(p.Default); err != nil {
				d.fault(defaultNode, path+".default", "%v", err)
			} else if err = p.long(p.Default); err != nil {
				d.refuse(defaultNode, path+".default", "%v", err)
			}
		}
	}
}

// paramsNode writes parameters: those of which there is nothing to say but the type in the short form.
func paramsNode(f *format, params []Param) *yaml.Node {
	if len(params) == 0 {
		return nil
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := range params {
		node := writeFields(f, &paramSource{Param: params[i]}, f.param)
		if len(node.Content) == 2 && params[i].Type != "" {
			node = node.Content[1]
		}
		if node.Kind == yaml.MappingNode {
			node.Style = yaml.FlowStyle
		}
		out.Content = append(out.Content, keyNode(params[i].Name), node)
	}
	return out
}
