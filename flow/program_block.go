package flow

import (
	"fmt"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// compileCases compiles the conditions of an if or a switch.
func (d *document) compileCases(plan *stepPlan, sc scope) []*expr.Expr {
	condition := func(path, source string) *expr.Expr {
		compiled := d.bare(path, source, sc)
		if compiled != nil {
			if why := expr.Fits(compiled.Type, expr.Boolean); why != "" {
				d.fault(d.places[path], path, "%s", why)
			}
		}
		return compiled
	}
	if plan.If != "" {
		return []*expr.Expr{condition(plan.path+".if", plan.If)}
	}
	var out []*expr.Expr
	for i := range plan.Switch {
		out = append(out, condition(fmt.Sprintf("%s.switch[%d].when", plan.path, i), plan.Switch[i].When))
	}
	return out
}
