package flow

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
	"go.yaml.in/yaml/v3"
)

// template is a compiled value of a document: a constant, an expression, a text with expressions in it, or a list or
// mapping of templates.
type template struct {
	schema *expr.Schema
	value  any                  // a constant
	whole  *expr.Expr           // the value of one expression, with its type
	text   []piece              // texts and expressions, joined
	list   []*template          // of templates, at least one not constant
	object map[string]*template // of templates, at least one not constant
	names  []string             // of the object, in order
}

type piece struct {
	text string
	expr *expr.Expr
}

func (t *template) constant() bool {
	return t.whole == nil && t.text == nil && t.list == nil && t.object == nil
}

// uses reports whether an expression of it refers to one of these variables.
func (t *template) uses(variables ...string) bool {
	used := func(x *expr.Expr) bool { return x != nil && slices.ContainsFunc(variables, x.Uses) }
	switch {
	case t == nil:
		return false
	case used(t.whole), slices.ContainsFunc(t.text, func(p piece) bool { return used(p.expr) }):
		return true
	case slices.ContainsFunc(t.list, func(one *template) bool { return one.uses(variables...) }):
		return true
	}
	for _, one := range t.object {
		if one.uses(variables...) {
			return true
		}
	}
	return false
}

// field returns a field of a mapping, if it is a constant.
func (t *template) field(name string) (value any, constant bool) {
	if t.constant() {
		object, _ := t.value.(map[string]any)
		return object[name], true
	}
	item := t.object[name]
	return item.value, item.constant()
}

// eval returns the template's value.
func (t *template) eval(vars map[string]any) (any, error) {
	switch {
	case t.whole != nil:
		return t.whole.Eval(vars)
	case t.text != nil:
		var b strings.Builder
		for _, p := range t.text {
			if p.expr == nil {
				b.WriteString(p.text)
				continue
			}
			value, err := p.expr.Eval(vars)
			if err != nil {
				return nil, err
			}
			b.WriteString(expr.Text(value))
		}
		return b.String(), nil
	case t.list != nil:
		out := make([]any, len(t.list))
		for i, item := range t.list {
			var err error
			if out[i], err = item.eval(vars); err != nil {
				return nil, err
			}
		}
		return out, nil
	case t.object != nil:
		out := make(map[string]any, len(t.object))
		for _, name := range t.names {
			value, err := t.object[name].eval(vars)
			if err != nil {
				return nil, err
			}
			out[name] = value
		}
		return out, nil
	}
	return t.value, nil
}

// append writes the template's value as JSON: what eval returns, without the maps in between.
func (t *template) append(b []byte, vars map[string]any) (_ []byte, err error) {
	if t.object != nil {
		b = append(b, '{')
		for i, name := range t.names {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = t.object[name].append(append(appendText(b, name), ':'), vars); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	value, err := t.eval(vars)
	if err != nil {
		return nil, err
	}
	if b, err = appendValue(b, value); err != nil {
		return nil, fmt.Errorf("the resolved input has no JSON form: %w", err)
	}
	return b, nil
}

// expression compiles one expression that starts at offset within the scalar node.
func (c *compiler) expression(node *yaml.Node, path, source string, offset int, sc scope) *expr.Expr {
	trimmed := strings.TrimLeft(source, " \t\n")
	offset += len(source) - len(trimmed)
	trimmed = strings.TrimRight(trimmed, " \t\n")
	if trimmed == "" {
		c.d.at(node, offset, path, "the expression is empty")
		return nil
	}
	compiled, found := sc.env.Compile(trimmed, func(ref expr.Ref) string { return c.check(sc, ref) })
	for _, issue := range found {
		at := offset
		lines := strings.Split(trimmed, "\n")
		for i := 0; i < issue.Line-1 && i < len(lines); i++ {
			at += len(lines[i]) + 1
		}
		c.d.at(node, at+issue.Column-1, path, "%s", issue.Message)
	}
	if compiled != nil {
		*sc.refs = append(*sc.refs, compiled.Refs...)
	}
	return compiled
}

// at records a fault at a byte offset within the value of a scalar node.
func (d *document) at(node *yaml.Node, offset int, path, format string, args ...any) {
	spot := yaml.Node{Line: 1, Column: 1}
	if node != nil {
		spot = d.spot(node, offset)
	}
	d.fault(&spot, path, format, args...)
}

// spot finds the line and column of an offset within a scalar's value.
func (d *document) spot(node *yaml.Node, offset int) yaml.Node {
	line, column := node.Line, node.Column
	offset = max(0, min(offset, len(node.Value)))
	switch node.Style {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		before := node.Value[:offset]
		line += 1 + strings.Count(before, "\n")
		indent := 0
		if line-1 < len(d.lines) {
			text := d.lines[line-1]
			indent = len(text) - len(strings.TrimLeft(text, " "))
		}
		column = indent + offset - strings.LastIndexByte(before, '\n')
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		column += 1 + offset
	default:
		column += offset
	}
	return yaml.Node{Line: line, Column: column}
}

// bare compiles a field that is an expression by itself; ${...} around it is allowed.
func (c *compiler) bare(path, source string, sc scope) *expr.Expr {
	node := c.d.places[path]
	offset := 0
	if node != nil {
		offset = max(0, strings.Index(node.Value, source))
	}
	if parts, _, err := expr.Split(source); err == nil && len(parts) == 1 && parts[0].Expr {
		return c.expression(node, path, parts[0].Text, offset+parts[0].Offset, sc)
	}
	return c.expression(node, path, source, offset, sc)
}

// template compiles a value.
func (c *compiler) template(path string, value any, sc scope) *template {
	switch v := value.(type) {
	case string:
		return c.textTemplate(path, v, sc)
	case []any:
		items, values := make([]*template, len(v)), make([]any, len(v))
		out := &template{schema: expr.List(nil), value: values}
		fixed := true
		for i, item := range v {
			items[i] = c.template(fmt.Sprintf("%s[%d]", path, i), item, sc)
			fixed, values[i] = fixed && items[i].constant(), items[i].value
			switch {
			case i == 0:
				out.schema.Items = items[i].schema
			case expr.Fits(items[i].schema, out.schema.Items) != "":
				out.schema.Items = expr.Any
			}
		}
		if !fixed {
			out.list = items
		}
		return out
	case map[string]any:
		items, values := make(map[string]*template, len(v)), make(map[string]any, len(v))
		out := &template{schema: object(), value: values}
		fixed := true
		for _, name := range slices.Sorted(maps.Keys(v)) {
			items[name] = c.template(path+"."+name, v[name], sc)
			fixed, values[name] = fixed && items[name].constant(), items[name].value
			out.schema.Properties[name] = items[name].schema
		}
		if !fixed {
			out.object, out.names = items, slices.Sorted(maps.Keys(items))
		}
		return out
	case bool:
		return &template{schema: expr.Boolean, value: v}
	case int64:
		return &template{schema: expr.Integer, value: v}
	case float64:
		return &template{schema: expr.Number, value: v}
	}
	return &template{schema: expr.Any, value: value}
}

func (c *compiler) textTemplate(path, text string, sc scope) *template {
	node := c.d.places[path]
	parts, bad, err := expr.Split(text)
	if err != nil {
		c.d.at(node, bad, path, "%v", err)
		return &template{schema: expr.Any, text: []piece{}}
	}
	if len(parts) == 1 {
		if !parts[0].Expr {
			return &template{schema: expr.String, value: parts[0].Text}
		}
		compiled := c.expression(node, path, parts[0].Text, parts[0].Offset, sc)
		if compiled == nil {
			return &template{schema: expr.Any, text: []piece{}} // not a constant, whatever it is
		}
		return &template{schema: compiled.Type, whole: compiled}
	}
	out := &template{schema: expr.String, text: []piece{}}
	for _, part := range parts {
		if !part.Expr {
			out.text = append(out.text, piece{text: part.Text})
			continue
		}
		compiled := c.expression(node, path, part.Text, part.Offset, sc)
		if compiled == nil {
			continue
		}
		if kind := compiled.Type.Type; kind == "array" || kind == "object" {
			c.d.at(node, part.Offset, path, "a %s cannot be part of a text; select from it or join it", compiled.Type)
		}
		out.text = append(out.text, piece{expr: compiled})
	}
	return out
}
