package expr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// The static bound on what an expression may cost, in CEL's units (about 0.1 us each), given lists of at most
// MaxList entries and texts of at most MaxText bytes. An expression with a loop is also held to it, and to
// MaxTime, when it runs, since values may be larger than that.
const (
	MaxCost = 5_000_000
	MaxList = 1000
	MaxText = 1024
	MaxTime = 100 * time.Millisecond
	MaxSize = 16 << 10 // bytes of source
)

// Issue is one fault of an expression. Line and Column start at 1 and count within the expression's text.
type Issue struct {
	Line, Column int
	Message      string
}

// Env is what an expression may refer to. It is safe for concurrent use once made.
type Env struct {
	cel      *cel.Env
	provider *provider
}

var base = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(ext.Strings(), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true))
})

// NewEnv returns an environment with the named variables.
func NewEnv(vars map[string]*Schema) (*Env, error) {
	root, err := base()
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	p := &provider{Provider: root.CELTypeProvider(), objects: map[string]*Schema{}}
	options := []cel.EnvOption{cel.CustomTypeProvider(p)}
	for name, schema := range vars {
		p.register(name, schema)
		options = append(options, cel.Variable(name, p.celType(name, schema)))
	}
	extended, err := root.Extend(options...)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return &Env{cel: extended, provider: p}, nil
}

// Ref is a selection from a variable, as in steps.acquire: Var "steps", Field "acquire".
type Ref struct {
	Var, Field   string
	Line, Column int
}

// Expr is a compiled expression. It is safe for concurrent use.
type Expr struct {
	Source  string
	Type    *Schema
	Refs    []Ref // every variable used, with the field selected from it, if any
	Cost    uint64
	program cel.Program
	guarded bool // has a loop: run under a time limit
}

// Compile parses and checks source. check, if not nil, sees the references before types are checked and may refuse
// them with a better message than the checker's.
func (e *Env) Compile(source string, check func(Ref) string) (*Expr, []Issue) {
	if len(source) > MaxSize {
		return nil, []Issue{{1, 1, fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(source), MaxSize)}}
	}
	parsed, problems := e.cel.Parse(source)
	if problems.Err() != nil {
		return nil, issues(problems)
	}
	x := &Expr{Source: source}
	x.visit(parsed.NativeRep())
	if check != nil {
		var found []Issue
		for _, ref := range x.Refs {
			if why := check(ref); why != "" {
				found = append(found, Issue{ref.Line, ref.Column, why})
			}
		}
		if len(found) > 0 {
			return nil, found
		}
	}
	checked, problems := e.cel.Check(parsed)
	if problems.Err() != nil {
		return nil, issues(problems)
	}
	x.Type = e.provider.schema(checked.OutputType())
	estimate, err := e.cel.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, []Issue{{1, 1, fmt.Sprintf("its cost cannot be bounded: %v", err)}}
	}
	x.Cost = estimate.Max
	if x.Cost > MaxCost {
		return nil, []Issue{{1, 1, fmt.Sprintf("it may cost %d units for lists of %d entries, at most %d are allowed; do the work in a tool", x.Cost, MaxList, MaxCost)}}
	}
	var options []cel.ProgramOption
	if x.guarded {
		options = append(options, cel.CostLimit(MaxCost), cel.InterruptCheckFrequency(64))
	}
	if x.program, err = e.cel.Program(checked, options...); err != nil {
		return nil, []Issue{{1, 1, err.Error()}}
	}
	return x, nil
}

// visit collects references and finds loops.
func (x *Expr) visit(tree *celast.AST) {
	info := tree.SourceInfo()
	bound := map[string]bool{"@result": true}
	seen := map[int64]bool{}
	add := func(variable, field string, id int64) {
		if bound[variable] {
			return
		}
		at := info.GetStartLocation(id)
		x.Refs = append(x.Refs, Ref{variable, field, at.Line(), at.Column() + 1})
	}
	celast.PreOrderVisit(tree.Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		switch e.Kind() {
		case celast.ComprehensionKind:
			x.guarded = true
			bound[e.AsComprehension().IterVar()] = true
			bound[e.AsComprehension().AccuVar()] = true
		case celast.CallKind:
			// Regular expressions and formatting have costs that depend on values alone.
			if name := e.AsCall().FunctionName(); name == "matches" || name == "format" || name == "replace" {
				x.guarded = true
			}
		case celast.SelectKind:
			if operand := e.AsSelect().Operand(); operand.Kind() == celast.IdentKind {
				seen[operand.ID()] = true
				add(operand.AsIdent(), e.AsSelect().FieldName(), operand.ID())
			}
		case celast.IdentKind:
			if !seen[e.ID()] {
				add(e.AsIdent(), "", e.ID())
			}
		}
	}))
}

func issues(found *cel.Issues) []Issue {
	var out []Issue
	for _, problem := range found.Errors() {
		message := strings.TrimPrefix(problem.Message, "Syntax error: ")
		message, _, _ = strings.Cut(message, " (in container")
		out = append(out, Issue{max(problem.Location.Line(), 1), max(problem.Location.Column()+1, 1), message})
	}
	return out
}

// sizes bounds the values that CEL cannot know.
type sizes struct{}

func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	switch node.Type().Kind() {
	case types.StringKind, types.BytesKind:
		return &cost.SizeEstimate{Max: MaxText}
	default:
		return &cost.SizeEstimate{Max: MaxList}
	}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// ErrCost says that an expression was stopped because it cost too much.
var ErrCost = errors.New("the expression costs too much on these values; do the work in a tool")

// Eval returns the expression's value in the form that Decode yields.
func (x *Expr) Eval(vars map[string]any) (any, error) {
	ctx := context.Background()
	evaluate := func() (any, error) {
		value, _, err := x.program.Eval(vars)
		if err != nil {
			return nil, err
		}
		return native(value)
	}
	if x.guarded {
		evaluate = func() (any, error) {
			ctx, cancel := context.WithTimeout(ctx, MaxTime)
			defer cancel()
			value, _, err := x.program.ContextEval(ctx, vars)
			if err != nil {
				if ctx.Err() != nil || strings.Contains(err.Error(), "cost limit") {
					return nil, ErrCost
				}
				return nil, err
			}
			return native(value)
		}
	}
	value, err := evaluate()
	if err != nil {
		return nil, fmt.Errorf("evaluate %q: %w", x.Source, err)
	}
	return value, nil
}

// Uses reports whether the expression refers to the variable.
func (x *Expr) Uses(variable string) bool {
	return slices.ContainsFunc(x.Refs, func(r Ref) bool { return r.Var == variable })
}
