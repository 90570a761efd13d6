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
	readFields(d, node, path, &s, d.format.step)
	if node.Kind == yaml.MappingNode {
		d.combination(&s, node, path)
	}
	return s
}

// combination refuses fields that make no sense together.
func (d *document) combination(s *Step, node *yaml.Node, path string) {
	said := func(name string) *yaml.Node { return d.places[path+"."+name] }
	var is []kind
	for _, k := range stepKinds {
		if said(string(k)) != nil {
			is = append(is, k)
		}
	}
	if len(is) != 1 {
		d.fault(node, path, "has %d of %s; want exactly one", len(is), listKinds(stepKinds))
		return
	}
	for _, f := range d.format.step {
		at := said(f.name)
		if at == nil {
			continue
		}
		if f.kinds != nil && !slices.Contains(f.kinds, is[0]) {
			d.fault(at, path+"."+f.name, "is not for %s steps; it is for %s", is[0], listKinds(f.kinds))
			continue
		}
		for _, needed := range f.needs {
			switch {
			case said(needed) != nil:
			case f.name == string(is[0]):
				d.fault(node, path+"."+needed, "is missing; a step with %s has %s", f.name, needed)
			default:
				d.fault(at, path+"."+f.name, "is for steps with %s", needed)
			}
		}
	}
	if s.Total > 0 && s.Timeout > s.Total {
		d.fault(said("timeout"), path+".timeout", "%s is more than total, %s", s.Timeout, s.Total)
	}
	if s.Quota != "" {
		if _, err := parseQuota(s.Quota); err != nil {
			d.fault(said("quota"), path+".quota", "%v", err)
		}
		if s.OnFailure == Skip {
			d.fault(said("quota"), path+".quota", "does not go with on_failure: skip, with which all items may fail")
		}
	}
}

// retry reads how often something is tried.
func (d *document) retry(node *yaml.Node, path string) Retry {
	var r Retry
	readFields(d, node, path, &r, d.format.retry)
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
	readFields(d, node, path, u, d.format.undo)
	return u
}

func (d *document) onFailure(node *yaml.Node, path string, allowed ...OnFailure) OnFailure {
	value := OnFailure(d.text(node, path))
	if !slices.Contains(allowed, value) {
		d.fault(node, path, "%q is unknown; want one of %v", value, allowed)
	}
	return value
}

// stepFailure reads on_failure of a step: a word, or the steps of a handler.
func (d *document) stepFailure(node *yaml.Node, path string) (OnFailure, []Step) {
	if node.Kind != yaml.MappingNode {
		return d.onFailure(node, path, Fail, Skip, Pause), nil
	}
	var handled Step
	readFields(d, node, path, &handled, d.format.handler)
	return Handle, handled.Handler
}
