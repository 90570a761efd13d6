package flow

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// steps reads a block of steps. The names of all steps of a document are different.
func (d *document) steps(node *yaml.Node, path string) []Step {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		d.fault(node, path, "want a list of steps")
		return nil
	}
	if d.depth++; d.depth > maxNesting {
		d.fault(node, path, "steps are nested more than %d deep", maxNesting)
		return nil
	}
	defer func() { d.depth-- }()
	var out []Step
	for i, item := range node.Content {
		if d.stepped++; d.stepped > MaxSteps {
			d.fault(item, path, "the flow has more than %d steps", MaxSteps)
			return nil
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		step := d.step(item, at)
		nameNode := d.places[at+".name"]
		switch {
		case nameNode == nil:
			d.fault(item, at+".name", "is missing; each step has a name")
		case !stepName.MatchString(step.Name) || slices.Contains(celReserved, step.Name):
			d.fault(nameNode, at+".name", "%q is not a step's name: lower case letters, digits and underscores, and no word of CEL's", step.Name)
		default:
			if line, twice := d.named[step.Name]; twice {
				d.fault(nameNode, at+".name", "%q is the name of the step in line %d already", step.Name, line)
			}
			d.named[step.Name] = nameNode.Line
		}
		out = append(out, step)
	}
	return out
}

func (d *document) step(node *yaml.Node, path string) Step {
	var s Step
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"name":   func(n *yaml.Node, path string) { s.Name = d.text(n, path) },
		"stage":  func(n *yaml.Node, path string) { s.Stage = d.text(n, path) },
		"title":  func(n *yaml.Node, path string) { s.Title = d.text(n, path) },
		"tool":   func(n *yaml.Node, path string) { s.Tool = d.text(n, path) },
		"flow":   func(n *yaml.Node, path string) { s.Flow = d.text(n, path) },
		"notify": func(n *yaml.Node, path string) { s.Notify = d.notify(n, path) },
		"with":   func(n *yaml.Node, path string) { s.With = d.mapping(n, path) },
		"when": func(n *yaml.Node, path string) {
			s.When = d.text(n, path)
			if s.When == "" {
				d.fault(n, path, "is empty; want a condition")
			}
		},
		"each": func(n *yaml.Node, path string) {
			s.Each = d.text(n, path)
			if s.Each == "" {
				d.fault(n, path, "is empty; want an expression that is a list")
			}
		},
		"parallel": func(n *yaml.Node, path string) { s.Parallel = d.count(n, path) },
		"on": func(n *yaml.Node, path string) {
			s.On = d.text(n, path)
			if s.On == "" {
				d.fault(n, path, "is empty; want the name of a device")
			}
		},
		"retry":      func(n *yaml.Node, path string) { s.Retry = d.retry(n, path) },
		"timeout":    func(n *yaml.Node, path string) { s.Timeout = d.duration(n, path) },
		"total":      func(n *yaml.Node, path string) { s.Total = d.duration(n, path) },
		"undo":       func(n *yaml.Node, path string) { s.Undo = d.undo(n, path) },
		"on_failure": func(n *yaml.Node, path string) { s.OnFailure, s.Handler = d.stepFailure(n, path) },

		"if":        func(n *yaml.Node, path string) { s.If = d.expressionText(n, path) },
		"then":      func(n *yaml.Node, path string) { s.Then = d.steps(n, path) },
		"else":      func(n *yaml.Node, path string) { s.Else = d.steps(n, path) },
		"switch":    func(n *yaml.Node, path string) { s.Switch = d.cases(n, path) },
		"branches":  func(n *yaml.Node, path string) { s.Branches = d.branches(n, path) },
		"signal":    func(n *yaml.Node, path string) { s.Signal = d.expressionText(n, path) },
		"approve":   func(n *yaml.Node, path string) { s.Approve = d.approve(n, path) },
		"sleep":     func(n *yaml.Node, path string) { s.Sleep = d.expressionText(n, path) },
		"window":    func(n *yaml.Node, path string) { s.Window = d.window(n, path) },
		"batch":     func(n *yaml.Node, path string) { s.Batch = d.count(n, path) },
		"quota":     func(n *yaml.Node, path string) { s.Quota = d.text(n, path) },
		"repeat":    func(n *yaml.Node, path string) { s.Repeat = d.repeat(n, path) },
		"output":    func(n *yaml.Node, path string) { s.Output = d.mapping(n, path) },
		"exclusive": func(n *yaml.Node, path string) { s.Exclusive = d.expressionText(n, path) },
		"heartbeat": func(n *yaml.Node, path string) { s.Heartbeat = d.duration(n, path) },
	})
	d.combination(&s, node, path)
	return s
}

// combination refuses fields that make no sense together.
func (d *document) combination(s *Step, node *yaml.Node, path string) {
	kinds := 0
	for _, name := range stepKinds {
		if d.places[path+"."+string(name)] != nil {
			kinds++
		}
	}
	if kinds != 1 && node.Kind == yaml.MappingNode {
		d.fault(node, path, "has %d of %s; want exactly one", kinds, listKinds())
	}
	if s.Parallel > 0 && s.Each == "" {
		d.fault(d.places[path+".parallel"], path+".parallel", "is for steps with each")
	}
	if s.On != "" && s.Tool == "" {
		d.fault(d.places[path+".on"], path+".on", "is for tools; a sub-flow's steps name their own devices")
	}
	if s.Notify != nil {
		for _, name := range []string{"with", "each", "retry", "timeout", "total", "undo", "on_failure"} {
			if at := d.places[path+"."+name]; at != nil {
				d.fault(at, path+"."+name, "is not for notify steps")
			}
		}
	}
	if s.Total > 0 && s.Timeout > s.Total {
		d.fault(d.places[path+".timeout"], path+".timeout", "%s is more than total, %s", s.Timeout, s.Total)
	}
}

func (d *document) notify(node *yaml.Node, path string) *Notify {
	n := &Notify{Severity: "info"}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"severity": func(node *yaml.Node, path string) {
			n.Severity = d.text(node, path)
			if !slices.Contains([]string{"info", "warning", "critical"}, n.Severity) {
				d.fault(node, path, "%q is unknown; want info, warning or critical", n.Severity)
			}
		},
		"text": func(node *yaml.Node, path string) { n.Text = d.text(node, path) },
	})
	if n.Text == "" {
		d.fault(node, path+".text", "is missing; a notice says something")
	}
	return n
}

func (d *document) retry(node *yaml.Node, path string) Retry {
	var r Retry
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"attempts": func(n *yaml.Node, path string) { r.Attempts = d.count(n, path) },
		"backoff":  func(n *yaml.Node, path string) { r.Backoff = d.duration(n, path) },
		"max":      func(n *yaml.Node, path string) { r.Max = d.duration(n, path) },
		"on":       func(n *yaml.Node, path string) { r.On = d.texts(n, path) },
	})
	if r.Max > 0 && r.Backoff > r.Max {
		d.fault(d.places[path+".backoff"], path+".backoff", "%s is more than max, %s", r.Backoff, r.Max)
	}
	return r
}

func (d *document) undo(node *yaml.Node, path string) *Undo {
	if node.Kind == yaml.ScalarNode {
		if node.Value != "none" {
			d.fault(node, path, "want none, or a mapping with tool and with")
		}
		return &Undo{None: true}
	}
	u := &Undo{}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"tool":       func(n *yaml.Node, path string) { u.Tool = d.text(n, path) },
		"with":       func(n *yaml.Node, path string) { u.With = d.mapping(n, path) },
		"retry":      func(n *yaml.Node, path string) { u.Retry = d.retry(n, path) },
		"on_failure": func(n *yaml.Node, path string) { u.OnFailure = d.onFailure(n, path, Fail, Skip) },
	})
	return u
}

func (d *document) onFailure(node *yaml.Node, path string, allowed ...OnFailure) OnFailure {
	value := OnFailure(d.text(node, path))
	if !slices.Contains(allowed, value) {
		d.fault(node, path, "%q is unknown; want one of %v", value, allowed)
	}
	return value
}
