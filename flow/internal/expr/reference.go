package expr

import (
	"slices"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// Field is a field of a variable, as in steps.acquire.
type Field struct{ Var, Name string }

// Ref is a use of a variable, or of a field of it, as in steps.acquire: Var "steps", Field "acquire".
type Ref struct {
	Var, Field   string
	Line, Column int
	// Test: it is only asked whether the field is there, as in has(steps.acquire).
	Test bool
	// Given: it is looked at only where a has() of the same expression says that the field is there.
	Given bool
}

// reader collects what an expression refers to, and what it costs by its form.
type reader struct {
	info    *celast.SourceInfo
	refs    []Ref
	loops   bool // it has loops, or calls whose cost lies in the values
	copying int  // calls whose cost grows with a value
}

// read walks an expression. bound are the variables of the loops around it, given the fields that are there for sure.
func (r *reader) read(e celast.Expr, bound []string, given []Field) {
	switch e.Kind() {
	case celast.IdentKind:
		r.add(e, e.AsIdent(), "", false, bound, given)
	case celast.SelectKind:
		s := e.AsSelect()
		if s.Operand().Kind() == celast.IdentKind {
			r.add(s.Operand(), s.Operand().AsIdent(), s.FieldName(), s.IsTestOnly(), bound, given)
			return
		}
		r.read(s.Operand(), bound, given)
	case celast.CallKind:
		r.call(e.AsCall(), bound, given)
	case celast.ComprehensionKind:
		r.loops = true
		c := e.AsComprehension()
		r.read(c.IterRange(), bound, given)
		r.read(c.AccuInit(), bound, given)
		inner := append(slices.Clone(bound), c.IterVar(), c.AccuVar())
		if c.HasIterVar2() {
			inner = append(inner, c.IterVar2())
		}
		r.read(c.LoopCondition(), inner, given)
		r.read(c.LoopStep(), inner, given)
		r.read(c.Result(), append(slices.Clone(bound), c.AccuVar()), given)
	case celast.ListKind:
		for _, item := range e.AsList().Elements() {
			r.read(item, bound, given)
		}
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.read(entry.AsMapEntry().Key(), bound, given)
			r.read(entry.AsMapEntry().Value(), bound, given)
		}
	case celast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			r.read(field.AsStructField().Value(), bound, given)
		}
	}
}

func (r *reader) add(at celast.Expr, variable, field string, test bool, bound []string, given []Field) {
	if slices.Contains(bound, variable) {
		return
	}
	place := r.info.GetStartLocation(at.ID())
	r.refs = append(r.refs, Ref{
		Var: variable, Field: field, Line: place.Line(), Column: place.Column() + 1,
		Test: test, Given: slices.Contains(given, Field{variable, field}),
	})
}

// call reads a call. && and || do not mind an error on one side if the other decides, so what one side asks holds for the other,
// wherever it stands.
func (r *reader) call(c celast.CallExpr, bound []string, given []Field) {
	args := c.Args()
	with := func(more []Field) []Field { return append(slices.Clone(given), more...) }
	switch name := c.FunctionName(); name {
	case operators.LogicalAnd, operators.LogicalOr:
		outcome := name == operators.LogicalAnd
		for i, arg := range args {
			var more []Field
			for j, other := range args {
				if i != j {
					more = append(more, facts(other, outcome, bound)...)
				}
			}
			r.read(arg, bound, with(more))
		}
	case operators.Conditional:
		r.read(args[0], bound, given)
		r.read(args[1], bound, with(facts(args[0], true, bound)))
		r.read(args[2], bound, with(facts(args[0], false, bound)))
	default:
		switch weigh(name) {
		case wild:
			r.loops = true
		case copies:
			r.copying++
		}
		if c.IsMemberFunction() {
			r.read(c.Target(), bound, given)
		}
		for _, arg := range args {
			r.read(arg, bound, given)
		}
	}
}

// facts returns the fields that are there for sure where a condition has the given outcome.
func facts(e celast.Expr, outcome bool, bound []string) []Field {
	switch e.Kind() {
	case celast.SelectKind:
		s := e.AsSelect()
		if outcome && s.IsTestOnly() && s.Operand().Kind() == celast.IdentKind && !slices.Contains(bound, s.Operand().AsIdent()) {
			return []Field{{s.Operand().AsIdent(), s.FieldName()}}
		}
	case celast.CallKind:
		args := e.AsCall().Args()
		switch name := e.AsCall().FunctionName(); name {
		case operators.LogicalNot:
			return facts(args[0], !outcome, bound)
		case operators.LogicalAnd, operators.LogicalOr:
			all := outcome == (name == operators.LogicalAnd)
			out := facts(args[0], outcome, bound)
			for _, arg := range args[1:] {
				more := facts(arg, outcome, bound)
				if all {
					out = append(out, more...)
				} else {
					out = slices.DeleteFunc(out, func(f Field) bool { return !slices.Contains(more, f) })
				}
			}
			return out
		}
	}
	return nil
}

// maxCopies is how many calls that copy an expression may have without limits on its run: on texts of a MiB they take some milliseconds.
const maxCopies = 8

// weight says how the cost of a call grows.
type weight uint8

const (
	cheap  weight = iota // constant
	copies               // with its arguments
	wild                 // faster, or by what is in them
)

func weigh(name string) weight {
	switch name {
	case operators.LogicalNot, operators.Negate, operators.Index, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo,
		operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.NotStrictlyFalse,
		"int", "uint", "double", "bool", "duration", "timestamp", "type", "dyn":
		return cheap
	case operators.Add, operators.Equals, operators.NotEquals, operators.In, "size", "contains", "startsWith", "endsWith", "string", "bytes",
		"charAt", "substring", "trim", "lowerAscii", "upperAscii", "reverse":
		return copies
	}
	return wild
}
