package flow

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// steps reads a block of steps.
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
		out = append(out, d.step(item, at))
	}
	return out
}

// names refuses a name that two steps have, at the second one.
func (d *document) names() {
	named := map[string]int{}
	for _, at := range d.laid.steps {
		path := at.path + ".name"
		node := d.places[path]
		switch {
		case node == nil:
		case !stepName.MatchString(at.step.Name) || slices.Contains(celReserved, at.step.Name):
			d.fault(node, path, "%q is not a step's name: lower case letters, digits and underscores, and no word of CEL's", at.step.Name)
		case named[at.step.Name] > 0:
			d.fault(node, path, "%q is the name of the step in line %d already", at.step.Name, named[at.step.Name])
		default:
			named[at.step.Name] = node.Line
		}
	}
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
	if s.Window != nil {
		d.checkWindow(s.Window, path+".window")
	}
	if s.Approve != nil {
		d.approvers(s.Approve, path+".approve")
	}
	if s.Total > 0 && s.Timeout > s.Total {
		d.fault(said("timeout"), path+".timeout", "%s is more than total, %s", s.Timeout, s.Total)
	}
	if s.Output != nil && len(s.Output) == 0 {
		d.fault(said("output"), path+".output", "is empty; say what the output is, or leave it out")
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

func asRetry[T any](at func(*T) *Retry) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.retry(n, path) },
		func(f *format, from *T) *yaml.Node {
			if node := writeFields(f, at(from), f.retry); len(node.Content) > 0 {
				return node
			}
			return nil
		},
	}
}

// readWord reads one of some words.
func readWord[W ~string](d *document, node *yaml.Node, path string, allowed ...W) W {
	value := W(d.text(node, path))
	if !slices.Contains(allowed, value) {
		d.fault(node, path, "%q is unknown; want one of %v", value, allowed)
	}
	return value
}

// stepFailure reads on_failure of a step: a word, or the steps of a handler.
func (d *document) stepFailure(node *yaml.Node, path string) (OnFailure, []Step) {
	if node.Kind != yaml.MappingNode {
		return readWord(d, node, path, Fail, Skip, Pause), nil
	}
	var handled Step
	readFields(d, node, path, &handled, d.format.handler)
	return Handle, handled.Handler
}
