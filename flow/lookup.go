package flow

import (
	"maps"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
	"go.yaml.in/yaml/v3"
)

// lookup fills in what the step's tool says.
func (d *document) lookup(step Step, path string, tools *Tools) *stepPlan {
	plan := &stepPlan{Step: step, returned: expr.Any, effect: Keyed}
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
		if found.wrong != nil {
			d.fault(d.places[path+".tool"], path+".tool", "the manifest of %s is wrong: %v", step.Tool, found.wrong)
			return plan
		}
		plan.effect, plan.probe, plan.returned, plan.accepts, plan.returns = found.Effect, found.Probe, found.output, found.accepts, found.returns
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
		var err error
		if plan.flowName, plan.flowVersion, err = parseCall(step.Flow); err != nil {
			d.fault(d.places[path+".flow"], path+".flow", "%v", err)
		}
		if undo == "" {
			undo = subflowUndo
		}
	case step.Signal != "":
		plan.returned = signalOutput
	case step.Approve != nil:
		plan.returned = approvalOutput
	case step.Window != nil:
		var err error
		if plan.window, err = parseWindow(step.Window); err != nil {
			d.fault(d.places[path+".window"], path+".window", "%v", err)
		}
	}
	if plan.Timeout == 0 {
		switch step.kind() {
		case kindTool:
			plan.Timeout = Duration(DefaultTimeout)
		case kindFlow:
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

// call checks what a step hands to the flow that it runs, if that is known, and learns what comes back.
func (c *compiler) call(plan *stepPlan) {
	path := plan.path
	if plan.flowName == "" {
		return
	}
	if round := c.circle(plan.flowName, plan.flowVersion, map[versionKey]bool{}); round != "" {
		c.d.fault(c.d.places[path+".flow"], path+".flow", "flow %s would run itself: %s -> %s", c.p.Name, c.p.Name, round)
		return
	}
	called := c.flowAt(plan.flowName, plan.flowVersion)
	if called == nil {
		switch missing := c.lib.missing; {
		case missing == nil || !missing(plan.flowName, plan.flowVersion):
		case plan.flowVersion == 0:
			c.d.warn(c.d.places[path+".flow"], path+".flow", "no flow is called %q: save it before this one is started", plan.flowName)
		case missing(plan.flowName, 0):
			c.d.fault(c.d.places[path+".flow"], path+".flow", "no flow is called %q, so it has no version %d: save it first, or leave the version out", plan.flowName, plan.flowVersion)
		default:
			c.d.fault(c.d.places[path+".flow"], path+".flow", "flow %s has no version %d", plan.flowName, plan.flowVersion)
		}
		return
	}
	plan.returned = subflowOutput
	if called.result != nil {
		plan.returned = called.result.schema
	}
	names := make([]string, len(called.Params))
	for i := range called.Params {
		names[i] = called.Params[i].Name
	}
	for _, name := range slices.Sorted(maps.Keys(plan.With)) {
		at := path + ".with." + name
		if !slices.Contains(names, name) {
			c.d.fault(c.d.key(path+".with", name), at, "%s has no parameter %q%s", plan.Flow, name, meant(name, names))
			continue
		}
		param := &called.Params[slices.Index(names, name)]
		if value, constant := plan.with.field(name); constant {
			if _, err := param.accept(value); err != nil {
				c.d.fault(c.d.places[at], at, "%v", err)
			} else if err = param.long(value); err != nil {
				c.d.refuse(c.d.places[at], at, "%v", err)
			}
		} else if why := expr.Fits(plan.with.schema.Properties[name], param.value.schema()); why != "" {
			c.d.fault(c.d.places[at], at, "%s", why)
		}
	}
	anchor := c.d.places[path+".with"]
	if anchor == nil {
		anchor = c.d.places[path+".flow"]
	}
	for i := range called.Params {
		if value := called.Params[i].value; value != nil && value.secret {
			plan.secret = append(plan.secret, names[i])
		}
		if _, said := plan.With[names[i]]; called.Params[i].Required && !said {
			c.d.fault(anchor, path+".with."+names[i], "is missing; %s requires it", plan.Flow)
		}
	}
}

// flowAt returns a version of a flow, if it is known.
func (c *compiler) flowAt(name string, version int) *program {
	if c.lib.flow == nil {
		return nil
	}
	return c.lib.flow(name, version)
}

// circle returns the calls that lead from a flow back to this document, which is about to be the latest version of its flow; "" if none do.
func (c *compiler) circle(name string, version int, seen map[versionKey]bool) string {
	if name == c.p.Name && version == 0 {
		return name
	}
	if seen[versionKey{name, version}] {
		return ""
	}
	seen[versionKey{name, version}] = true
	called := c.flowAt(name, version)
	if called == nil {
		return ""
	}
	for _, plan := range called.steps {
		if plan.flowName != "" {
			if round := c.circle(plan.flowName, plan.flowVersion, seen); round != "" {
				return name + " -> " + round
			}
		}
	}
	return ""
}
