package trigger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// program is a compiled expression over body.
type program = expr.Expr

// value is a value of a document, whose texts may hold expressions: a text that is one ${...} is that expression's value, with its type.
type value struct {
	constant any
	whole    *program
	text     []piece
	list     []*value
	object   map[string]*value
}

type piece struct {
	text string
	expr *program
}

func compileExpression(source string) (*program, error) {
	env, err := expr.NewEnv(map[string]*expr.Schema{"body": expr.Any})
	if err != nil {
		return nil, err
	}
	compiled, issues := env.Compile(source, func(expr.Ref) string { return "" })
	var faults []error
	for _, issue := range issues {
		faults = append(faults, fmt.Errorf("%q: %s", source, issue.Message))
	}
	return compiled, errors.Join(faults...)
}

// compileValue compiles a value. Without expressions, a ${ in a text is a fault: it would stay as it is, which nobody wants.
func compileValue(in any, expressions bool) (*value, error) {
	var faults []error
	inner := func(in any) *value {
		v, err := compileValue(in, expressions)
		if err != nil {
			faults = append(faults, err)
		}
		return v
	}
	out := &value{}
	switch in := in.(type) {
	case map[string]any:
		out.object = make(map[string]*value, len(in))
		for _, key := range slices.Sorted(maps.Keys(in)) {
			out.object[key] = inner(in[key])
		}
	case []any:
		out.list = make([]*value, len(in))
		for i := range in {
			out.list[i] = inner(in[i])
		}
	case string:
		if !expressions && strings.Contains(in, "${") {
			return nil, fmt.Errorf("%q: a schedule has no values for expressions", in)
		}
		parts, _, err := expr.Split(in)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", in, err)
		}
		for _, part := range parts {
			p := piece{text: part.Text}
			if part.Expr {
				if p.expr, err = compileExpression(part.Text); err != nil {
					faults = append(faults, err)
				}
			}
			out.text = append(out.text, p)
		}
		if in == "" {
			out.constant = ""
		}
		if len(out.text) == 1 {
			out.constant, out.whole = out.text[0].text, out.text[0].expr
			out.text = nil
		}
	case int:
		out.constant = int64(in)
	default:
		out.constant = in
	}
	return out, errors.Join(faults...)
}

// suits says why a flow's parameter would never take the value, if that is known before there is a body.
func (v *value) suits(p *flow.Param) error {
	if !v.open() {
		known, err := v.eval(nil)
		if err == nil {
			_, err = p.Check(known)
		}
		return err
	}
	var kind string
	switch {
	case v.whole != nil:
		if kind = v.whole.Type.Type; kind == "" {
			return nil
		}
	case v.text != nil:
		kind = "string"
	case v.list != nil:
		kind = "array"
	default:
		kind = "object"
	}
	declared, _, _ := strings.Cut(p.Type, "<")
	if takes, typed := kinds[declared]; typed && !slices.Contains(takes, kind) {
		return fmt.Errorf("it is of the type %s, and parameter %q is of the type %s", kind, p.Name, p.Type)
	}
	return nil
}

// kinds are the types of expressions that a type of parameters may take.
var kinds = map[string][]string{
	"string": {"string"}, "secret": {"string"}, "int": {"integer", "number"}, "float": {"integer", "number"}, "bool": {"boolean"}, "list": {"array"}, "map": {"object"},
}

// open says whether there is an expression in the value.
func (v *value) open() bool {
	for _, part := range v.text {
		if part.expr != nil {
			return true
		}
	}
	for _, one := range v.object {
		if one.open() {
			return true
		}
	}
	return v.whole != nil || slices.ContainsFunc(v.list, (*value).open)
}

// eval works the value out.
func (v *value) eval(vars map[string]any) (any, error) {
	switch {
	case v.whole != nil:
		return v.whole.Eval(vars)
	case v.text != nil:
		var b strings.Builder
		for _, p := range v.text {
			if p.expr == nil {
				b.WriteString(p.text)
				continue
			}
			got, err := p.expr.Eval(vars)
			if err != nil {
				return nil, err
			}
			b.WriteString(expr.Text(got))
		}
		return b.String(), nil
	case v.list != nil:
		out := make([]any, len(v.list))
		for i := range v.list {
			var err error
			if out[i], err = v.list[i].eval(vars); err != nil {
				return nil, err
			}
		}
		return out, nil
	case v.object != nil:
		out := make(map[string]any, len(v.object))
		for key, one := range v.object {
			var err error
			if out[key], err = one.eval(vars); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		return out, nil
	}
	return v.constant, nil
}
