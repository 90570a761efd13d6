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
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// Bounds of an expression. What it may cost, in CEL's units (of about 0.1 us), is bounded when it is saved, given lists of at most MaxList entries and
// texts of at most MaxText bytes: two loops, one within the other, are allowed, three are not. Values may be larger than that, so an expression
// whose cost lies in its values is stopped, by MaxUnits and MaxTime, when it runs.
const (
	MaxCost  = 500_000_000
	MaxList  = 1000
	MaxText  = 1024
	MaxUnits = 5_000_000
	MaxTime  = 50 * time.Millisecond
	MaxSize  = 16 << 10 // bytes of source
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
	return extend(root, &provider{Provider: root.CELTypeProvider(), objects: map[string]*Schema{}}, vars)
}

// With returns an environment with more variables, which hide those of the same names.
func (e *Env) With(vars map[string]*Schema) (*Env, error) {
	return extend(e.cel, &provider{Provider: e.provider, objects: map[string]*Schema{}}, vars)
}

func extend(root *cel.Env, p *provider, vars map[string]*Schema) (*Env, error) {
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

// Declare sets the type of a field of an object variable, for what is compiled from then on, with this environment and those made from it. It
// must not run beside Compile.
func (e *Env) Declare(variable, field string, s *Schema) {
	if object := e.provider.objects["{"+variable+"}"]; object != nil {
		object.Properties[field] = s
		e.provider.register(variable+"."+field, s)
	}
}

// Expr is a compiled expression. It is safe for concurrent use.
type Expr struct {
	Source  string
	Type    *Schema
	Refs    []Ref // every variable used, with the field selected from it, if any
	Cost    uint64
	program cel.Program
	guarded bool       // its cost lies in the values: run under limits
	given   [2][]Field // fields that are there if it is false, true
	path    []string   // of an expression that only selects: its variable and fields
}

// Given returns the fields that are there for sure where the expression, a condition, has this outcome.
func (x *Expr) Given(outcome bool) []Field {
	if outcome {
		return x.given[1]
	}
	return x.given[0]
}

// Constant returns the value of an expression that refers to nothing. An error is a fault that it has always.
func (x *Expr) Constant() (value any, constant bool, err error) {
	if len(x.Refs) > 0 {
		return nil, false, nil
	}
	value, err = x.Eval(map[string]any{})
	return value, true, err
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
	tree := parsed.NativeRep()
	r := &reader{info: tree.SourceInfo()}
	r.read(tree.Expr(), nil, nil)
	x := &Expr{Source: source, Refs: r.refs, guarded: r.loops || r.copying > maxCopies, path: selection(tree.Expr())}
	for i, outcome := range []bool{false, true} {
		x.given[i] = facts(tree.Expr(), outcome, nil)
	}
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
		options = append(options, cel.CostLimit(MaxUnits), cel.InterruptCheckFrequency(1), cel.CustomDecoratorV2(limiter(e.cel)))
	}
	if x.program, err = e.cel.Program(checked, options...); err != nil {
		return nil, []Issue{{1, 1, strings.TrimPrefix(err.Error(), "program instantiation: ")}}
	}
	return x, nil
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
	if value, ok := lookUp(vars, x.path); ok {
		return value, nil
	}
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
				if ctx.Err() != nil || errors.Is(err, ErrCost) || strings.Contains(err.Error(), "cost limit") {
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
