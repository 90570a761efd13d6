package flow

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// maxNesting bounds how deep steps may hold others.
const maxNesting = 16

func (d *document) expressionText(node *yaml.Node, path string) string {
	text := d.text(node, path)
	if text == "" && node.Kind == yaml.ScalarNode {
		d.fault(node, path, "is empty")
	}
	return text
}

func (d *document) texts(node *yaml.Node, path string) []string {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		d.fault(node, path, "want a list of texts")
		return nil
	}
	out := make([]string, len(node.Content))
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.places[at] = item
		out[i] = d.expressionText(item, at)
	}
	return out
}

func (d *document) cases(node *yaml.Node, path string) []Case {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		d.fault(node, path, "want a list of cases, each with when and steps")
		return nil
	}
	out := make([]Case, len(node.Content))
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		c := &out[i]
		d.fields(item, at, map[string]func(*yaml.Node, string){
			"when":  func(n *yaml.Node, path string) { c.When = d.expressionText(n, path) },
			"steps": func(n *yaml.Node, path string) { c.Steps = d.steps(n, path) },
		})
		for _, name := range []string{"when", "steps"} {
			if item.Kind == yaml.MappingNode && d.places[at+"."+name] == nil {
				d.fault(item, at+"."+name, "is missing; a case has when and steps")
			}
		}
	}
	return out
}

func (d *document) branches(node *yaml.Node, path string) []Branch {
	if node.Kind != yaml.MappingNode || len(node.Content) == 0 {
		d.fault(node, path, "want a mapping of names to lists of steps")
		return nil
	}
	var out []Branch
	known := map[string]func(*yaml.Node, string){}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if !stepName.MatchString(key.Value) {
			d.fault(key, path, "%q is not a branch's name: lower case letters, digits and underscores", key.Value)
		}
		known[key.Value] = func(n *yaml.Node, path string) { out = append(out, Branch{key.Value, d.steps(n, path)}) }
	}
	d.fields(node, path, known)
	return out
}

func (d *document) approve(node *yaml.Node, path string) *Approve {
	a := &Approve{Count: 1}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"text":  func(n *yaml.Node, path string) { a.Text = d.expressionText(n, path) },
		"by":    func(n *yaml.Node, path string) { a.By = d.texts(n, path) },
		"count": func(n *yaml.Node, path string) { a.Count = d.count(n, path) },
	})
	if node.Kind == yaml.MappingNode && d.places[path+".text"] == nil {
		d.fault(node, path+".text", "is missing; say what is to be approved")
	}
	return a
}

func (d *document) window(node *yaml.Node, path string) *Window {
	w := &Window{Zone: "UTC"}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"days": func(n *yaml.Node, path string) { w.Days = d.texts(n, path) },
		"from": func(n *yaml.Node, path string) { w.From = d.text(n, path) },
		"to":   func(n *yaml.Node, path string) { w.To = d.text(n, path) },
		"zone": func(n *yaml.Node, path string) { w.Zone = d.text(n, path) },
	})
	return w
}

func (d *document) repeat(node *yaml.Node, path string) *Repeat {
	r := &Repeat{}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"until": func(n *yaml.Node, path string) { r.Until = d.expressionText(n, path) },
		"every": func(n *yaml.Node, path string) { r.Every = d.duration(n, path) },
		"max":   func(n *yaml.Node, path string) { r.Max = d.count(n, path) },
	})
	for _, name := range []string{"until", "max"} {
		if node.Kind == yaml.MappingNode && d.places[path+"."+name] == nil {
			d.fault(node, path+"."+name, "is missing; a repeat has until and max")
		}
	}
	return r
}

// stepFailure reads on_failure of a step: a word, or the steps of a handler.
func (d *document) stepFailure(node *yaml.Node, path string) (OnFailure, []Step) {
	if node.Kind != yaml.MappingNode {
		return d.onFailure(node, path, Fail, Skip, Pause), nil
	}
	var handler []Step
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"steps": func(n *yaml.Node, path string) { handler = d.steps(n, path) },
	})
	return Handle, handler
}

func (d *document) starters(node *yaml.Node, path string) *Starters {
	s := &Starters{}
	d.fields(node, path, map[string]func(*yaml.Node, string){
		"by": func(n *yaml.Node, path string) { s.By = d.texts(n, path) },
	})
	return s
}

func (d *document) priority(node *yaml.Node, path string) *int {
	var value int
	if err := node.Decode(&value); err != nil || node.Tag != "!!int" || value < 0 || value > 9 {
		d.fault(node, path, "want a whole number from 0 to 9")
	}
	return &value
}
