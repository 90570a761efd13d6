package flow

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (d *document) cases(node *yaml.Node, path string) []Case {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		d.fault(node, path, "want a list of cases, each with when and steps")
		return nil
	}
	out := make([]Case, len(node.Content))
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		readFields(d, item, at, &out[i], d.format.choice)
	}
	return out
}

func (d *document) branches(node *yaml.Node, path string) []Branch {
	if node.Kind != yaml.MappingNode || len(node.Content) == 0 {
		d.fault(node, path, "want a mapping of names to lists of steps")
		return nil
	}
	var table []field[[]Branch]
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if !stepName.MatchString(key.Value) {
			d.fault(key, path, "%q is not a branch's name: lower case letters, digits and underscores", key.Value)
		}
		table = append(table, field[[]Branch]{name: key.Value, codec: codec[[]Branch]{read: func(d *document, into *[]Branch, n *yaml.Node, path string) {
			*into = append(*into, Branch{key.Value, d.steps(n, path)})
		}}})
	}
	var out []Branch
	readFields(d, node, path, &out, table)
	return out
}

func branchesNode(f *format, branches []Branch) *yaml.Node {
	if len(branches) == 0 {
		return nil
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := range branches {
		if list := listNode(f, branches[i].Steps, f.step); list != nil {
			out.Content = append(out.Content, keyNode(branches[i].Name), list)
		}
	}
	return out
}

// approvers refuses a count of approvals that the people named cannot reach.
func (d *document) approvers(a *Approve, path string) {
	people := !slices.ContainsFunc(a.By, func(who string) bool { return strings.HasPrefix(who, "role:") })
	if len(a.By) > 0 && people && a.Count > len(a.By) {
		d.fault(d.places[path+".count"], path+".count", "%d have to approve, and by names %d", a.Count, len(a.By))
	}
}

// checkWindow says of each field of a time window by itself what is wrong with it.
func (d *document) checkWindow(w *Window, path string) {
	try := func(field string, one Window) {
		at := d.places[path+"."+field]
		if _, err := parseWindow(&one); err != nil && at != nil {
			d.fault(at, path+"."+field, "%v", err)
		}
	}
	try("from", Window{From: w.From, To: "24:00"})
	try("to", Window{From: "00:00", To: w.To})
	try("zone", Window{From: "00:00", To: "24:00", Zone: w.Zone})
	for i, day := range w.Days {
		field := fmt.Sprintf("days[%d]", i)
		try(field, Window{From: "00:00", To: "24:00", Days: []string{day}})
		if slices.Contains(w.Days[:i], day) {
			d.fault(d.places[path+"."+field], path+"."+field, "%s is said twice", day)
		}
	}
}
