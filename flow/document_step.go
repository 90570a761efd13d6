package flow

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

func (d *document) steps(node *yaml.Node, path string) {
	if node.Kind != yaml.SequenceNode {
		d.fault(node, path, "want a list of steps")
		return
	}
	if len(node.Content) > MaxSteps {
		d.fault(node, path, "has %d steps; at most %d are allowed", len(node.Content), MaxSteps)
		return
	}
	seen := map[string]int{}
	for i, item := range node.Content {
		at := fmt.Sprintf("steps[%d]", i)
		step := d.step(item, at)
		nameNode := d.places[at+".name"]
		switch {
		case nameNode == nil:
			d.fault(item, at+".name", "is missing; each step has a name")
		case !stepName.MatchString(step.Name) || slices.Contains(celReserved, step.Name):
			d.fault(nameNode, at+".name", "%q is not a step's name: lower case letters, digits and underscores, and no word of CEL's", step.Name)
		default:
			if first, twice := seen[step.Name]; twice {
				d.fault(nameNode, at+".name", "%q is the name of step %d already", step.Name, first+1)
			}
			seen[step.Name] = i
		}
		d.Steps = append(d.Steps, step)
	}
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
		"on_failure": func(n *yaml.Node, path string) { s.OnFailure = d.onFailure(n, path, Fail, Skip, Pause) },
	})
	d.combination(&s, node, path)
	return s
}

// combination refuses fields that make no sense together.
func (d *document) combination(s *Step, node *yaml.Node, path string) {
	kinds := 0
	for _, set := range []bool{s.Tool != "", s.Flow != "", s.Notify != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 && node.Kind == yaml.MappingNode {
		d.fault(node, path, "has %d of tool, flow and notify; want exactly one", kinds)
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
