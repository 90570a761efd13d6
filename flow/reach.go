package flow

import (
	"slices"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// Bounds on what is tried.
const (
	maxWorlds = 256 // combinations of parameters
	maxCases  = 32  // cases before one
)

// worlds returns all values that the parameters of some conditions can have together, if these are all that the conditions refer to, and there are not
// too many; nil otherwise.
func (c *compiler) worlds(conditions ...*expr.Expr) []map[string]any {
	var names []string
	for _, condition := range conditions {
		if condition == nil {
			return nil
		}
		for _, ref := range condition.Refs {
			if ref.Var != "params" || ref.Field == "" {
				return nil
			}
			if !slices.Contains(names, ref.Field) {
				names = append(names, ref.Field)
			}
		}
	}
	out := []map[string]any{{}}
	for _, name := range names {
		at := slices.IndexFunc(c.p.Params, func(p Param) bool { return p.Name == name })
		values := c.p.Params[at].values()
		if len(values) == 0 || len(out)*len(values) > maxWorlds {
			return nil
		}
		var more []map[string]any
		for _, world := range out {
			for _, value := range values {
				next := map[string]any{name: value}
				for other, value := range world {
					next[other] = value
				}
				more = append(more, next)
			}
		}
		out = more
	}
	return out
}

// values returns all that a parameter can be; nil if that is not known.
func (p *Param) values() []any {
	var out []any
	switch {
	case p.Type == "bool" && len(p.Enum) == 0:
		out = []any{false, true}
	case len(p.Enum) > 0:
		out = slices.Clone(p.Enum)
	default:
		return nil
	}
	if zero := p.value.zero(); !p.Required && p.Default == nil && zero != nil && p.value.elem == nil && !slices.Contains(out, zero) {
		out = append(out, zero)
	}
	return out
}

// reached reports whether a condition holds for some parameters for which none of the earlier ones does. If that cannot be told, it is taken
// to be.
func (c *compiler) reached(condition *expr.Expr, earlier []*expr.Expr) bool {
	if len(earlier) > maxCases {
		return true
	}
	var tell []*expr.Expr // the earlier conditions that can be told
	for _, one := range earlier {
		if c.worlds(append(slices.Clone(tell), one, condition)...) != nil {
			tell = append(tell, one)
		}
	}
	worlds := c.worlds(append(slices.Clone(tell), condition)...)
	if worlds == nil {
		return true
	}
	holds := func(x *expr.Expr, world map[string]any) (bool, error) {
		value, err := x.Eval(map[string]any{"params": world})
		return value == true, err
	}
	for _, world := range worlds {
		yes, err := holds(condition, world)
		if err != nil {
			return true
		}
		taken := false
		for _, one := range tell {
			before, err := holds(one, world)
			if err != nil {
				return true
			}
			taken = taken || before
		}
		if yes && !taken {
			return true
		}
	}
	return false
}

// always reports whether a condition holds for all parameters there can be.
func (c *compiler) always(condition *expr.Expr) bool {
	worlds := c.worlds(condition)
	for _, world := range worlds {
		if value, err := condition.Eval(map[string]any{"params": world}); err != nil || value != true {
			return false
		}
	}
	return len(worlds) > 0
}
