package flow

import (
	"fmt"
	"maps"
	"slices"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// scope is what the expressions of one place may refer to.
type scope struct {
	env   *expr.Env
	step  int  // they belong to this step; -1 before all, len(steps) behind all
	self  bool // the step's own output as well: in its undo
	extra []string
	known []expr.Field // what is there for sure, since a condition around says so
	refs  *[]expr.Ref  // collects what is used
	shown string       // what it makes is shown to people who know nothing of the execution's secrets; "" is not
}

// given returns the scope of what is looked at only where a condition has this outcome.
func (sc scope) given(condition *expr.Expr, outcome bool) scope {
	if condition != nil {
		sc.known = append(slices.Clone(sc.known), condition.Given(outcome)...)
	}
	return sc
}

// public is the scope of what makes something that is shown to everybody.
func (sc scope) public(what string) scope {
	sc.shown = what
	return sc
}

// extraVars are the variables that some places have, and where.
var extraVars = map[string]string{
	"item": "in with, on, output, exclusive and undo of a step with each", "index": "in with, on, output, exclusive and undo of a step with each, and in until and undo of one with repeat",
	"output": "in output and until of a step", "failure": "in the steps of a handler (on_failure)",
}

// relation is how a step stands to another one that refers to it.
type relation uint8

const (
	before  relation = iota // it came first, for sure
	perhaps                 // it came first if it was chosen
	itself
	later
	inside // the other holds it
	holder // it holds the other
	apart  // in another branch or case of the same step
)

// relation says how step j stands to step i.
func (l *layout) relation(i, j int) relation {
	switch {
	case i == j:
		return itself
	case i >= 0 && i < len(l.steps) && j > i && j < l.steps[i].end:
		return inside
	case j > i:
		return later
	case i < l.steps[j].end:
		return holder
	}
	stands := before
	for k := j; ; {
		up := l.steps[k].parent
		if up < 0 {
			return stands
		}
		if i < l.steps[up].end { // holds both
			switch in := l.blockWithin(i, up); {
			case in == l.steps[k].block:
				return stands
			case l.blocks[in].handler:
				return perhaps
			}
			return apart
		}
		if len(l.steps[up].step.Branches) == 0 {
			stands = perhaps
		}
		k = up
	}
}

// blockWithin returns the block of a step in which a step that it holds is.
func (l *layout) blockWithin(i, holder int) int {
	for l.steps[i].parent != holder {
		i = l.steps[i].parent
	}
	return l.steps[i].block
}

// check refuses a reference to what is not there, or not yet; "" if it is fine.
func (c *compiler) check(sc scope, ref expr.Ref) string {
	switch ref.Var {
	case "steps":
		return c.checkStep(sc, ref)
	case "params":
		if ref.Field == "" {
			return ""
		}
		names := make([]string, len(c.p.Params))
		for i := range c.p.Params {
			names[i] = c.p.Params[i].Name
		}
		if !slices.Contains(names, ref.Field) {
			return fmt.Sprintf("no parameter is called %q%s", ref.Field, meant(ref.Field, names))
		}
		if p := &c.p.Params[slices.Index(names, ref.Field)]; sc.shown != "" && !c.d.stored && p.value != nil && p.value.secret {
			return fmt.Sprintf("parameter %q is a secret, and %s is shown to everybody who looks; make it of what may be seen", ref.Field, sc.shown)
		}
	default:
		if where := extraVars[ref.Var]; where != "" && !slices.Contains(sc.extra, ref.Var) {
			return ref.Var + " is there only " + where
		}
	}
	return ""
}

func (c *compiler) checkStep(sc scope, ref expr.Ref) string {
	if ref.Field == "" {
		return "steps stands for nothing by itself; name a step, as in steps.NAME.FIELD"
	}
	at, found := c.p.index[ref.Field]
	if !found {
		return fmt.Sprintf("no step is called %q%s", ref.Field, meant(ref.Field, slices.Collect(maps.Keys(c.p.index))))
	}
	stands := c.p.relation(sc.step, at)
	switch stands {
	case itself:
		if !sc.self {
			return fmt.Sprintf("step %q refers to itself; a step may refer to earlier ones only", ref.Field)
		}
	case later:
		return fmt.Sprintf("step %q runs later than this one; a step may refer to earlier ones only", ref.Field)
	case inside, holder:
		return fmt.Sprintf("step %q has not ended when this is looked at; a step may refer to earlier ones only", ref.Field)
	case apart:
		return fmt.Sprintf("step %q is on another way of the same step: neither sees the other; refer to it behind that step", ref.Field)
	}
	if target := c.p.steps[at]; !target.kind().outputs() {
		return fmt.Sprintf("step %q is %s and has no output", ref.Field, target.kind().article())
	}
	if stands == perhaps && !ref.Test && !ref.Given && !slices.Contains(sc.known, expr.Field{Var: "steps", Name: ref.Field}) {
		return fmt.Sprintf("step %q runs only if its way is chosen; ask first, as in has(steps.%s) ? ... : ...", ref.Field, ref.Field)
	}
	return ""
}
