package flow

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
	"go.yaml.in/yaml/v3"
)

// program is a definition made ready to run: expressions compiled, tools looked up, defaults filled in. It is
// immutable.
type program struct {
	Definition
	*layout
	steps []*stepPlan // beside layout.steps
	index map[string]int
}

// stepPlan is one step of a program.
type stepPlan struct {
	Step
	place
	effect   Effect
	probe    string // the probe tool, for effect probe
	output   *expr.Schema
	returns  *jsonschema.Schema // what the tool's output is held to; nil: nothing
	when     *expr.Expr
	each     *expr.Expr
	on       *template
	with     *template // nil for an empty input
	notice   *template
	undoTool string // "" for none
	undoOn   bool   // the undo runs on the step's device
	undoWith *template
	undo     Undo
	uses     []int // steps whose outputs the expressions read, for the undo as well
}

// executionSchema is the variable "execution".
var executionSchema = &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{
	"id": expr.String, "flow": expr.String, "key": expr.String, "actor": expr.String, "reason": expr.String,
}}

// compile checks a document against the tools and returns the program, or nil if there are faults. Flows that are
// called as sub-flows are looked up when they are called.
func compile(source []byte, tools *Tools) (*program, []Fault) {
	d := parse(source)
	var p *program
	if len(d.faults) == 0 {
		p = d.compile(tools)
	}
	if len(d.faults) > 0 {
		slices.SortStableFunc(d.faults, func(a, b Fault) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, d.faults
	}
	return p, nil
}

// Parse reads a document without looking at tools: its form, types of parameters and names are checked, expressions are not.
func Parse(source []byte) (Definition, error) {
	d := parse(source)
	if len(d.faults) > 0 {
		return Definition{}, &DefinitionError{d.Name, d.faults}
	}
	return d.Definition, nil
}

func (d *document) compile(tools *Tools) *program {
	p := &program{Definition: d.Definition, layout: newLayout(&d.Definition)}
	p.index = make(map[string]int, len(p.layout.steps))
	params := &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{}}
	for _, param := range d.Params {
		params.Properties[param.Name] = param.value.schema()
	}
	outputs := &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{}}
	for i, at := range p.layout.steps {
		step := *at.step
		plan := d.lookup(step, at.path, tools)
		plan.place = at
		d.runnable(plan)
		p.steps = append(p.steps, plan)
		p.index[step.Name] = i
		output := plan.output
		if step.Each != "" {
			if plan.OnFailure == Skip {
				output = expr.Any // what failed is null in the list
			}
			output = &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{"items": expr.List(output)}}
		}
		outputs.Properties[step.Name] = output
	}
	vars := map[string]*expr.Schema{"params": params, "steps": outputs, "execution": executionSchema}
	env, err := expr.NewEnv(vars)
	if err != nil {
		d.fault(nil, "", "%v", err)
		return nil
	}
	for i, plan := range p.steps {
		d.compileStep(p, i, plan, vars, env, tools)
	}
	return p
}

// runnable refuses what the machine does not run.
func (d *document) runnable(plan *stepPlan) {
	for _, field := range []string{"if", "switch", "branches", "signal", "approve", "sleep", "window", "batch", "quota", "repeat", "output", "exclusive", "heartbeat", "on_failure.steps", "retry.on"} {
		if at := d.places[plan.path+"."+field]; at != nil {
			d.fault(at, plan.path+"."+field, "is not supported by this engine")
		}
	}
}

// lookup fills in what the step's tool says.
func (d *document) lookup(step Step, path string, tools *Tools) *stepPlan {
	plan := &stepPlan{Step: step, output: expr.Any, effect: Keyed}
	plan.Retry = plan.Retry.or(1, DefaultBackoff, DefaultBackoffMax)
	plan.Parallel = max(plan.Parallel, 1)
	if plan.OnFailure == "" {
		plan.OnFailure = Fail
	}
	if step.Undo != nil {
		plan.undo = *step.Undo
	}
	plan.undo.Retry = plan.undo.Retry.or(undoAttempts, undoBackoff, undoBackoffMax)
	if plan.undo.OnFailure == "" {
		plan.undo.OnFailure = Fail
	}
	undo := plan.undo.Tool
	undoAt := path + ".undo.tool"
	switch {
	case step.Tool != "":
		found := tools.get(step.Tool)
		if found == nil {
			d.fault(d.places[path+".tool"], path+".tool", "no tool is called %q%s", step.Tool, meant(step.Tool, tools.names()))
			return plan
		}
		plan.effect, plan.probe, plan.output, plan.returns = found.Effect, found.Probe, found.output, found.returns
		if plan.Stage == "" {
			plan.Stage = found.Stage
		}
		if plan.Timeout == 0 {
			plan.Timeout = Duration(found.Timeout)
		}
		if undo == "" {
			undo, undoAt = found.Undo, path+".tool"
		}
		if found.OnDevice && step.On == "" {
			d.fault(d.places[path+".tool"], path+".on", "is missing: %s runs on a device; say which", step.Tool)
		}
		if !found.OnDevice && step.On != "" {
			d.fault(d.places[path+".on"], path+".on", "%s does not run on devices", step.Tool)
		}
	case step.Flow != "":
		if !flowName.MatchString(step.Flow) {
			d.fault(d.places[path+".flow"], path+".flow", "%q is not a flow's name", step.Flow)
		}
		if undo == "" {
			undo = subflowUndo
		}
	case step.Notify != nil:
		plan.output = &expr.Schema{Type: "object"}
	}
	if plan.Timeout == 0 {
		plan.Timeout = Duration(DefaultTimeout)
		if step.Flow != "" {
			plan.Timeout = Duration(365 * 24 * time.Hour) // its own steps have theirs
		}
	}
	if plan.undo.None || undo == "" {
		return plan
	}
	plan.undoTool = undo
	if undo == subflowUndo {
		return plan
	}
	if found := tools.get(undo); found == nil {
		d.fault(d.places[undoAt], path+".undo.tool", "no tool is called %q%s", undo, meant(undo, tools.names()))
	} else {
		plan.undoOn = found.OnDevice
		if found.OnDevice && step.On == "" {
			d.fault(d.places[undoAt], path+".undo.tool", "%s runs on a device, and the step names none with on", undo)
		}
	}
	return plan
}

func (t *Tools) names() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Sorted(maps.Keys(t.tools))
}

func (d *document) compileStep(p *program, i int, plan *stepPlan, vars map[string]*expr.Schema, env *expr.Env, tools *Tools) {
	path := plan.path
	var refs []expr.Ref
	sc := scope{env: env, check: d.checker(p, i, i, false), refs: &refs}
	if plan.When != "" {
		if plan.when = d.bare(path+".when", plan.When, sc); plan.when != nil {
			if why := expr.Fits(plan.when.Type, expr.Boolean); why != "" {
				d.fault(d.places[path+".when"], path+".when", "%s", why)
			}
		}
	}
	if plan.Each != "" {
		item := expr.Any
		if plan.each = d.bare(path+".each", plan.Each, sc); plan.each != nil {
			if why := expr.Fits(plan.each.Type, expr.List(nil)); why != "" {
				d.fault(d.places[path+".each"], path+".each", "%s", why)
			} else if plan.each.Type.Items != nil {
				item = plan.each.Type.Items
			}
		}
		inner := maps.Clone(vars)
		inner["item"], inner["index"] = item, expr.Integer
		var err error
		if sc.env, err = expr.NewEnv(inner); err != nil {
			d.fault(d.places[path+".each"], path+".each", "%v", err)
			return
		}
		sc.check = d.checker(p, i, i, true)
	}
	if plan.On != "" {
		plan.on = d.template(path+".on", plan.On, sc)
		if why := expr.Fits(plan.on.schema, expr.String); why != "" {
			d.fault(d.places[path+".on"], path+".on", "%s; want the name of a device", why)
		}
	}
	if plan.Notify != nil {
		plan.notice = d.template(path+".notify.text", plan.Notify.Text, sc)
	}
	if len(plan.With) > 0 {
		plan.with = d.template(path+".with", plan.With, sc)
	}
	if plan.Tool != "" {
		if found := tools.get(plan.Tool); found != nil {
			d.fit(path, plan.with, found)
		}
	}
	if plan.undo.With != nil {
		sc.check = d.checker(p, i, i+1, plan.Each != "")
		plan.undoWith = d.template(path+".undo.with", plan.undo.With, sc)
	}
	for _, ref := range refs {
		if at, found := p.index[ref.Field]; ref.Var == "steps" && found && !slices.Contains(plan.uses, at) {
			plan.uses = append(plan.uses, at)
		}
	}
}

// checker refuses references to steps and parameters that are not there, or not yet, at step i.
func (d *document) checker(p *program, i, limit int, inEach bool) func(expr.Ref) string {
	return func(ref expr.Ref) string {
		switch ref.Var {
		case "steps":
			at, found := p.index[ref.Field]
			switch {
			case ref.Field == "":
				return "steps stands for nothing by itself; name a step, as in steps.NAME.FIELD"
			case !found:
				return fmt.Sprintf("no step is called %q%s", ref.Field, meant(ref.Field, slices.Collect(maps.Keys(p.index))))
			case at == i && at >= limit:
				return fmt.Sprintf("step %q refers to itself; a step may refer to earlier ones only", ref.Field)
			case at >= limit:
				return fmt.Sprintf("step %q runs later than this one; a step may refer to earlier ones only", ref.Field)
			case p.steps[at].Notify != nil:
				return fmt.Sprintf("step %q sends a notice and has no output", ref.Field)
			}
		case "params":
			if ref.Field == "" {
				return ""
			}
			var names []string
			for _, param := range d.Params {
				names = append(names, param.Name)
			}
			if !slices.Contains(names, ref.Field) {
				return fmt.Sprintf("no parameter is called %q%s", ref.Field, meant(ref.Field, names))
			}
		case "item", "index":
			if !inEach {
				return ref.Var + " is there only in with, on and undo of a step with each"
			}
		}
		return ""
	}
}

// fit checks a step's input against its tool's schema.
func (d *document) fit(path string, with *template, found *tool) {
	want := found.input
	if want.Type != "object" {
		return
	}
	if with == nil {
		with = &template{schema: &expr.Schema{Type: "object"}, value: map[string]any{}}
	}
	anchor := d.places[path+".with"]
	if anchor == nil {
		anchor = d.places[path+".tool"]
	}
	before := len(d.faults)
	for _, name := range slices.Sorted(maps.Keys(with.schema.Properties)) {
		at := path + ".with." + name
		property, known := want.Properties[name]
		if !known && !want.Open {
			d.fault(d.key(path+".with", name), at, "%s takes no %q%s", found.Name, name, meant(name, slices.Collect(maps.Keys(want.Properties))))
			continue
		}
		if !known {
			property = want.Extra
		}
		if why := expr.Fits(with.schema.Properties[name], property); why != "" {
			d.fault(d.places[at], at, "%s", why)
		}
	}
	for _, name := range want.Required {
		if with.schema.Properties[name] == nil {
			d.fault(anchor, path+".with."+name, "is missing; %s requires it", found.Name)
		}
	}
	if len(d.faults) == before && with.constant() {
		if err := validate(found.accepts, mustJSON(with.value)); err != nil {
			d.fault(anchor, path+".with", "%v", err)
		}
	}
}

// key returns the node of a key within a mapping.
func (d *document) key(path, name string) *yaml.Node {
	node := d.places[path]
	if node != nil && node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return node.Content[i]
			}
		}
	}
	return node
}

// input resolves a step's input.
func (s *stepPlan) input(vars map[string]any) (json.RawMessage, error) {
	if s.with == nil {
		return json.RawMessage("{}"), nil
	}
	value, err := s.with.eval(vars)
	if err != nil {
		return nil, err
	}
	data, err := appendValue(nil, value)
	if err != nil {
		return nil, fmt.Errorf("the resolved input has no JSON form: %w", err)
	}
	return data, nil
}
