package flow

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// Schemas of what is there without a tool.
var (
	executionSchema = object("id", expr.String, "flow", expr.String, "key", expr.String, "actor", expr.String, "reason", expr.String)
	failureSchema   = object("step", expr.String, "code", expr.String, "message", expr.String)
	signalOutput    = object("payload", expr.Any, "id", expr.String, "from", expr.String)
	approvalOutput  = object("approved", expr.Boolean, "by", expr.List(expr.String), "comment", expr.String)
	subflowOutput   = object("execution", expr.String) // of a flow that says nothing else
)

func object(fields ...any) *expr.Schema {
	s := &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{}}
	for i := 0; i+1 < len(fields); i += 2 {
		name, _ := fields[i].(string)
		s.Properties[name], _ = fields[i+1].(*expr.Schema)
	}
	return s
}

// compiler makes a program of a document. Steps are compiled in the order of the layout, in which a step comes after all that it can
// refer to, and after the one that holds it.
type compiler struct {
	d        *document
	p        *program
	lib      library
	plain    *expr.Env      // params, steps, execution
	handling *expr.Env      // and failure
	handled  []bool         // by block: it is in a handler
	known    [][]expr.Field // by block: what is there for sure within it
}

func (d *document) compile(lib library) *program {
	c := &compiler{d: d, lib: lib, p: &program{Definition: d.Definition, layout: d.shape()}}
	c.handled, c.known = make([]bool, len(c.p.blocks)), make([][]expr.Field, len(c.p.blocks))
	for _, at := range c.p.layout.steps {
		plan := d.lookup(*at.step, at.path, lib.tools)
		plan.place, plan.handles = at, c.p.handled(at)
		c.p.steps = append(c.p.steps, plan)
	}
	params := object()
	for _, param := range d.Params {
		params.Properties[param.Name] = param.value.schema()
	}
	var err error
	c.plain, err = expr.NewEnv(map[string]*expr.Schema{"params": params, "steps": object(), "execution": executionSchema})
	if err == nil {
		c.handling, err = c.plain.With(map[string]*expr.Schema{"failure": failureSchema})
	}
	if err != nil {
		d.fault(nil, "", "%v", err)
		return nil
	}
	for i := range c.p.steps {
		if len(d.faults) >= maxFaults {
			return nil
		}
		c.step(i)
	}
	c.flow()
	return c.p
}

// flow compiles what the document says outside of its steps.
func (c *compiler) flow() {
	var refs []expr.Ref
	start := scope{env: c.plain, step: -1, refs: &refs}
	for i, text := range c.p.Locks {
		c.p.locks = append(c.p.locks, c.text(fmt.Sprintf("locks[%d]", i), text, start.public("the key of a lock")))
	}
	if len(c.p.Output) > 0 {
		c.p.result = c.template("output", c.p.Output, scope{env: c.plain, step: len(c.p.steps), refs: &refs})
	}
}

// step compiles one step.
func (c *compiler) step(i int) {
	plan := c.p.steps[i]
	path, in := plan.path, plan.block
	if owner := c.p.blocks[in].owner; owner >= 0 {
		c.handled[in] = c.p.blocks[in].handler || c.handled[c.p.steps[owner].block]
	}
	var refs []expr.Ref
	sc := scope{env: c.plain, step: i, known: c.known[in], refs: &refs}
	if c.handled[in] {
		sc.env, sc.extra = c.handling, []string{"failure"}
	}
	if plan.When != "" {
		plan.when = c.condition(path+".when", plan.When, sc)
		c.varies(path+".when", plan.when, "the step runs always: take when out", "the step never runs: take it out")
		sc = sc.given(plan.when, true)
	}
	for _, b := range plan.blocks {
		c.known[b] = sc.known
	}
	switch plan.kind() {
	case kindTool, kindFlow:
		c.leaf(plan, sc)
	case kindNotify:
		plan.notice = c.textual(path+".notify.text", plan.Notify.Text, sc)
	case kindIf:
		c.choice(plan, []string{path + ".if"}, []string{plan.If}, sc)
	case kindSwitch:
		paths, conditions := make([]string, len(plan.Switch)), make([]string, len(plan.Switch))
		for i, one := range plan.Switch {
			paths[i], conditions[i] = fmt.Sprintf("%s.switch[%d].when", path, i), one.When
		}
		c.choice(plan, paths, conditions, sc)
	case kindSignal:
		plan.signal = c.text(path+".signal", plan.Signal, sc.public("the name of a signal"))
	case kindApprove:
		plan.question = c.textual(path+".approve.text", plan.Approve.Text, sc)
	case kindSleep:
		c.sleep(plan, sc)
	}
	if plan.output == nil {
		plan.output = plan.returned
	}
	for _, ref := range refs {
		if at, found := c.p.index[ref.Field]; ref.Var == "steps" && found && !slices.Contains(plan.uses, at) {
			plan.uses = append(plan.uses, at)
		}
	}
	c.plain.Declare("steps", plan.Name, c.seen(plan))
}

// leaf compiles a step that runs a tool or a flow.
func (c *compiler) leaf(plan *stepPlan, sc scope) {
	path := plan.path
	if plan.Each != "" {
		var ok bool
		if sc, ok = c.each(plan, sc); !ok {
			return
		}
	}
	if plan.On != "" {
		plan.on = c.text(path+".on", plan.On, sc.public("the name of a device"))
	}
	if plan.Exclusive != "" {
		plan.exclusive = c.text(path+".exclusive", plan.Exclusive, sc.public("the key of a lock"))
		if plan.Tool == "" {
			c.d.fault(c.d.places[path+".exclusive"], path+".exclusive", "is for steps that run a tool; a flow that is called has locks of its own")
		}
	}
	if len(plan.With) > 0 {
		plan.with = c.template(path+".with", plan.With, sc)
	}
	if plan.Tool != "" {
		if found := c.lib.tools.get(plan.Tool); found != nil {
			c.d.fit(path, plan.with, found)
		}
	} else {
		c.call(plan)
	}
	plan.quota, _ = parseQuota(plan.Quota) // the parser has looked at it
	if plan.Repeat != nil {
		if inner, ok := c.with(sc, path+".repeat", map[string]*expr.Schema{"output": plan.returned, "index": expr.Integer}); ok {
			c.until(plan, inner)
		}
	}
	if plan.Output != nil {
		if inner, ok := c.with(sc, path+".output", map[string]*expr.Schema{"output": plan.returned}); ok {
			plan.mapped = c.template(path+".output", plan.Output, inner)
			plan.output = plan.mapped.schema
		}
	}
	if plan.undo.With != nil {
		if plan.Repeat != nil {
			sc, _ = c.with(sc, path+".undo", map[string]*expr.Schema{"index": expr.Integer})
		}
		sc.self = true
		c.plain.Declare("steps", plan.Name, c.seen(plan))
		plan.undoWith = c.template(path+".undo.with", plan.undo.With, sc)
	}
}

// seen is the type under which other steps know a step's output.
func (c *compiler) seen(plan *stepPlan) *expr.Schema {
	out := plan.output
	if out == nil {
		out = plan.returned
	}
	if plan.Each != "" {
		if plan.OnFailure == Skip || plan.Quota != "" {
			out = expr.Any // what failed is null in the list
		}
		return object("items", expr.List(out))
	}
	return out
}

// with adds variables to a scope.
func (c *compiler) with(sc scope, path string, vars map[string]*expr.Schema) (scope, bool) {
	env, err := sc.env.With(vars)
	if err != nil {
		c.d.fault(c.d.places[path], path, "%v", err)
		return sc, false
	}
	sc.env = env
	sc.extra = slices.AppendSeq(slices.Clone(sc.extra), maps.Keys(vars))
	return sc, true
}

// each compiles the list of a step, and returns the scope in which its items are there.
func (c *compiler) each(plan *stepPlan, sc scope) (scope, bool) {
	path, item := plan.path+".each", expr.Any
	if plan.each = c.bare(path, plan.Each, sc); plan.each != nil {
		if why := expr.Fits(plan.each.Type, expr.List(nil)); why != "" {
			c.d.fault(c.d.places[path], path, "%s", why)
		} else if plan.each.Type.Items != nil {
			item = plan.each.Type.Items
		}
	}
	return c.with(sc, path, map[string]*expr.Schema{"item": item, "index": expr.Integer})
}

// condition compiles an expression that has to be a bool.
func (c *compiler) condition(path, source string, sc scope) *expr.Expr {
	compiled := c.bare(path, source, sc)
	if compiled != nil {
		if why := expr.Fits(compiled.Type, expr.Boolean); why != "" {
			c.d.fault(c.d.places[path], path, "%s", why)
			return nil
		}
	}
	return compiled
}

// varies refuses a condition that is the same in every execution.
func (c *compiler) varies(path string, condition *expr.Expr, always, never string) {
	if condition == nil {
		return
	}
	value, constant, err := condition.Constant()
	switch {
	case !constant && condition.Type == expr.Boolean && c.always(condition):
		c.d.fault(c.d.places[path], path, "is true whatever the parameters are: %s", always)
	case !constant && condition.Type == expr.Boolean && !c.reached(condition, nil):
		c.d.fault(c.d.places[path], path, "is false whatever the parameters are: %s", never)
	case !constant:
	case err != nil:
		c.d.fault(c.d.places[path], path, "%v", err)
	case value == true:
		c.d.fault(c.d.places[path], path, "is always true: %s", always)
	default:
		c.d.fault(c.d.places[path], path, "is always false: %s", never)
	}
}

// choice compiles the conditions of if and switch. What one says is known in its own steps, and that it does not hold in all that come after.
func (c *compiler) choice(plan *stepPlan, paths, conditions []string, sc scope) {
	for i, source := range conditions {
		path := paths[i]
		condition := c.condition(path, source, sc)
		if earlier := slices.Index(conditions[:i], source); earlier >= 0 {
			c.d.fault(c.d.places[path], path, "its steps never run: the case in line %d asks the same", c.d.places[paths[earlier]].Line)
		} else if plan.If != "" {
			c.varies(path, condition, "write the steps of then without it", "take the step out, or write the steps of else without it")
		} else {
			before := len(c.d.faults)
			c.varies(path, condition, "no case after it is reached: write its steps as else", "its steps never run: take the case out")
			if condition != nil && len(c.d.faults) == before && !c.reached(condition, plan.cases) {
				c.d.fault(c.d.places[path], path, "its steps never run: whatever the parameters are, a case before it holds if this one does")
			}
		}
		plan.cases = append(plan.cases, condition)
		c.known[plan.blocks[i]] = sc.given(condition, true).known
		sc = sc.given(condition, false)
	}
	if len(plan.blocks) > len(conditions) {
		c.known[plan.blocks[len(conditions)]] = sc.known
	}
}

// until compiles the condition that ends a repetition.
func (c *compiler) until(plan *stepPlan, sc scope) {
	path := plan.path + ".repeat.until"
	plan.until = c.condition(path, plan.Repeat.Until, sc)
	if plan.until == nil {
		return
	}
	c.varies(path, plan.until, "one iteration is enough: take repeat out", "the step always fails after max iterations; look at output")
	if len(plan.until.Refs) > 0 && !plan.until.Uses("output") && !plan.until.Uses("index") {
		c.d.fault(c.d.places[path], path, "looks at neither output nor index: it is the same after each iteration")
	}
}

// sleep compiles how long a step waits.
func (c *compiler) sleep(plan *stepPlan, sc scope) {
	path := plan.path + ".sleep"
	plan.sleep = c.template(path, plan.Sleep, sc)
	if seconds, err := strconv.ParseInt(plan.Sleep, 10, 64); err == nil {
		plan.sleep = &template{schema: expr.Integer, value: seconds}
	}
	switch kind := plan.sleep.schema.Type; {
	case plan.sleep.constant():
		wait, err := sleepTime(plan.sleep.value)
		if err == nil && wait == 0 {
			err = fmt.Errorf("%s is no wait", wait)
		}
		if err != nil {
			c.d.fault(c.d.places[path], path, "%v", err)
		}
	case !slices.Contains([]string{"", "string", "integer", "number"}, kind):
		c.d.fault(c.d.places[path], path, "has type %s; want a duration, as in 10m, or a number of seconds", plan.sleep.schema)
	}
}

// text compiles a value that has to be a text.
func (c *compiler) text(path, source string, sc scope) *template {
	out := c.template(path, source, sc)
	if why := expr.Fits(out.schema, expr.String); why != "" {
		c.d.fault(c.d.places[path], path, "%s", why)
	}
	return out
}

// textual compiles what is shown to people: any value that can be written into a text.
func (c *compiler) textual(path, source string, sc scope) *template {
	out := c.template(path, source, sc)
	if kind := out.schema.Type; kind == "array" || kind == "object" {
		c.d.fault(c.d.places[path], path, "a %s is no text; select from it or join it", out.schema)
	}
	return out
}
