package expr

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync/atomic"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// Bounds of single calls. Between calls, and from one turn of a loop to the next, an evaluation is stopped by its cost and its time;
// these keep each call, which nothing stops once it has begun, to some milliseconds. CEL's own costs do not know how long a regular expression takes, nor
// that a value that was built by doubling is far larger than its memory.
const (
	maxResult  = 4 << 20   // bytes of a text that a call makes
	maxEntries = 1 << 18   // entries of a list that a call makes
	maxNodes   = 1 << 17   // values within values that are compared or formatted
	maxSearch  = 1 << 24   // bytes searched, times bytes searched for
	maxRegex   = 1 << 20   // bytes matched, times instructions of the regular expression
	maxPattern = 1 << 10   // bytes of a regular expression
	maxValue   = 8 << 20   // bytes, about, that an expression makes for its value
	precise    = `\.\d{3}` // more digits than anybody reads
)

var precision = regexp.MustCompile(precise)

// limiter puts bounds on the calls of one program.
func limiter(env *cel.Env) interpreter.InterpretableDecoratorV2 {
	known := env.Functions()
	return func(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		call, ok := node.(interpreter.InterpretableCall)
		if !ok {
			return node, nil
		}
		name := call.Function()
		var do func(...ref.Val) ref.Val
		switch name {
		case "matches":
			m, err := newMatcher(call)
			if err != nil {
				return nil, err
			}
			do = m.match
		case operators.Equals:
			do = func(v ...ref.Val) ref.Val { return types.Equal(v[0], v[1]) }
		case operators.NotEquals:
			do = func(v ...ref.Val) ref.Val { return types.Bool(types.Equal(v[0], v[1]) != types.True) }
		case operators.Add, operators.In, operators.OldIn, "replace", "join", "split", "indexOf", "lastIndexOf", "format":
			if declared := known[name]; declared != nil {
				bindings, err := declared.Bindings()
				if err != nil {
					return nil, err
				}
				do = binding(bindings, call.OverloadID(), name)
			}
		}
		if do == nil {
			return watched{call}, nil
		}
		bounded := interpreter.NewCall(call.ID(), name, call.OverloadID(), watchLast(call.Args()), func(values ...ref.Val) ref.Val {
			if !affordable(name, values) {
				return types.WrapErr(ErrCost)
			}
			if left, ok := values[0].(traits.Lister); ok && name == operators.Add {
				if right, ok := values[1].(traits.Lister); ok {
					return concat([2]traits.Lister{left, right})
				}
			}
			return do(values...)
		})
		return watched{bounded}, nil
	}
}

// watched is a call that does not begin once the evaluation's time is over.
type watched struct{ interpreter.InterpretableCall }

func (w watched) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	if frame.CheckInterrupt() {
		return types.WrapErr(ErrCost)
	}
	return w.InterpretableCall.Exec(frame)
}

// watchLast looks at the time once the arguments of a call are there: they may have taken it all.
func watchLast(args []interpreter.InterpretableV2) []interpreter.InterpretableV2 {
	args = slices.Clone(args)
	args[len(args)-1] = watchedValue{args[len(args)-1]}
	return args
}

type watchedValue struct{ interpreter.InterpretableV2 }

func (w watchedValue) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	value := w.InterpretableV2.Exec(frame)
	if frame.CheckInterrupt() {
		return types.WrapErr(ErrCost)
	}
	return value
}

// binding finds what a call does; nil if it is not to be found.
func binding(bindings []*functions.Overload, overload, name string) func(...ref.Val) ref.Val {
	for _, id := range []string{overload, name} {
		for _, b := range bindings {
			if b.Operator == id {
				return func(values ...ref.Val) ref.Val { return invoke(b, values) }
			}
		}
	}
	return nil
}

func invoke(b *functions.Overload, values []ref.Val) ref.Val {
	if b.OperandTrait != 0 && len(values) > 0 && !values[0].Type().HasTrait(b.OperandTrait) {
		return types.MaybeNoSuchOverloadErr(values[0])
	}
	switch {
	case len(values) == 1 && b.Unary != nil:
		return b.Unary(values[0])
	case len(values) == 2 && b.Binary != nil:
		return b.Binary(values[0], values[1])
	case b.Function != nil:
		return b.Function(values...)
	}
	return types.NoSuchOverloadErr()
}

// affordable reports whether a call on these values stays within its bounds.
func affordable(name string, values []ref.Val) bool {
	text := func(i int) string {
		if i >= len(values) {
			return ""
		}
		s, _ := values[i].(types.String)
		return string(s)
	}
	switch name {
	case operators.Add:
		if left, ok := values[0].(traits.Lister); ok {
			right, ok := values[1].(traits.Lister)
			return !ok || length(left)+length(right) <= maxEntries
		}
		return len(text(0))+len(text(1)) <= maxResult
	case operators.Equals, operators.NotEquals, operators.In, operators.OldIn:
		left := maxNodes
		return spend(values[0], &left) && spend(values[1], &left)
	case "replace":
		return len(text(0))+strings.Count(text(0), text(1))*max(0, len(text(2))-len(text(1))) <= maxResult
	case "split":
		return strings.Count(text(0), text(1)) <= maxEntries
	case "indexOf", "lastIndexOf":
		return len(text(0))*max(1, len(text(1))) <= maxSearch
	case "join":
		list, ok := values[0].(traits.Lister)
		if !ok {
			return true
		}
		size := 0
		for it := list.Iterator(); it.HasNext() == types.True && size <= maxResult; {
			s, _ := it.Next().(types.String)
			size += len(s) + len(text(1))
		}
		return size <= maxResult
	case "format":
		left := maxNodes
		return !precision.MatchString(text(0)) && spend(values[1], &left)
	}
	return true
}

// concat copies. CEL's own sum of lists is a tree of sums, in which finding an entry takes as long as the sum is.
func concat(lists [2]traits.Lister) ref.Val {
	all := make([]ref.Val, 0, length(lists[0])+length(lists[1]))
	for _, list := range lists {
		for it := list.Iterator(); it.HasNext() == types.True; {
			all = append(all, it.Next())
		}
	}
	return types.NewRefValList(types.DefaultTypeAdapter, all)
}

func length(list traits.Lister) int {
	n, _ := list.Size().(types.Int)
	return int(min(n, maxEntries+1))
}

// spend counts the values within a value, as often as they are met, and reports whether there are no more than are left.
func spend(value ref.Val, left *int) bool {
	if *left--; *left < 0 {
		return false
	}
	switch v := value.(type) {
	case types.String:
		*left -= len(v) / 64
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if key := it.Next(); !spend(v.Get(key), left) {
				return false
			}
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if !spend(it.Next(), left) {
				return false
			}
		}
	}
	return *left >= 0
}

// matcher matches regular expressions. One that is a constant is compiled once, and of others the last one is kept.
type matcher struct{ last atomic.Pointer[pattern] }

type pattern struct {
	source string
	size   int
	regex  *regexp.Regexp
}

func newMatcher(call interpreter.InterpretableCall) (*matcher, error) {
	m := &matcher{}
	if constant, ok := call.Args()[1].(interpreter.InterpretableConst); ok {
		if source, ok := constant.Value().(types.String); ok {
			if _, err := m.compile(string(source)); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *matcher) compile(source string) (*pattern, error) {
	if p := m.last.Load(); p != nil && p.source == source {
		return p, nil
	}
	if len(source) > maxPattern {
		return nil, ErrCost
	}
	regex, err := regexp.Compile(source)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	p := &pattern{source, len(program.Inst), regex}
	if p.size*MaxText > maxRegex {
		return nil, ErrCost
	}
	m.last.Store(p)
	return p, nil
}

func (m *matcher) match(values ...ref.Val) ref.Val {
	text, ok := values[0].(types.String)
	source, also := values[1].(types.String)
	if !ok || !also {
		return types.NoSuchOverloadErr()
	}
	p, err := m.compile(string(source))
	if err != nil {
		return types.WrapErr(err)
	}
	if len(text)*p.size > maxRegex {
		return types.WrapErr(ErrCost)
	}
	return types.Bool(p.regex.MatchString(string(text)))
}
