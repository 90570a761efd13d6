package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Graph draws a flow: as a tree in text, as a graph of Graphviz (dot), or as one of Mermaid. Any other form is an ErrInvalid.
func Graph(d Definition, form string) (string, error) {
	l := newLayout(&d)
	switch form {
	case "text":
		return textGraph(&d, l), nil
	case "dot", "mermaid":
		g := newGraph(&d, l)
		if form == "dot" {
			return g.dot(), nil
		}
		return g.mermaid(), nil
	}
	return "", fmt.Errorf("flow: %w: no graph is called %q; want %s", ErrInvalid, form, "text, dot or mermaid")
}

// brief says in a few words what a step does.
func brief(s *Step) string {
	out := ""
	switch s.kind() {
	case kindTool, kindFlow:
		out = s.Tool + s.Flow
		if s.Flow != "" {
			out = "flow " + out
		}
		if s.On != "" {
			out += " on " + s.On
		}
		if s.Each != "" {
			out += ", each of " + s.Each
		}
		if s.Repeat != nil {
			out += ", until " + s.Repeat.Until
		}
	case kindNotify:
		out = "notify " + strconv.Quote(s.Notify.Text)
	case kindIf:
		out = "if " + s.If
	case kindSwitch:
		out = "switch"
	case kindBranches:
		out = fmt.Sprintf("%d branches", len(s.Branches))
	case kindSignal:
		out = "wait for signal " + s.Signal
	case kindApprove:
		out = "approve " + strconv.Quote(s.Approve.Text)
	case kindSleep:
		out = "sleep " + s.Sleep
	case kindWindow:
		out = "wait until " + s.Window.From + " to " + s.Window.To + " " + cmp.Or(s.Window.Zone, "UTC")
	}
	if s.When != "" {
		out += ", when " + s.When
	}
	return strings.Join(strings.Fields(out), " ")
}

// way names a block for people.
func way(l *layout, b int) string {
	block := l.blocks[b]
	if block.owner < 0 {
		return ""
	}
	owner := l.steps[block.owner].step
	if number, is := strings.CutPrefix(block.name, "case "); is && len(owner.Switch) > 0 {
		if i, err := strconv.Atoi(number); err == nil && i < len(owner.Switch) {
			return "when " + strings.Join(strings.Fields(owner.Switch[i].When), " ")
		}
	}
	if block.handler {
		return "on failure"
	}
	return block.name
}

func textGraph(d *Definition, l *layout) string {
	var out strings.Builder
	out.WriteString(d.Name)
	if d.Version > 0 {
		fmt.Fprintf(&out, " v%d", d.Version)
	}
	out.WriteByte('\n')
	var block func(b int, indent string)
	block = func(b int, indent string) {
		steps := l.blocks[b].steps
		for i, at := range steps {
			mark, below := "├─ ", "│  "
			if i == len(steps)-1 {
				mark, below = "└─ ", "   "
			}
			held := l.steps[at].blocks
			fmt.Fprintf(&out, "%s%s%s  %s\n", indent, mark, l.steps[at].step.Name, brief(l.steps[at].step))
			for _, inner := range held {
				fmt.Fprintf(&out, "%s%s%s:\n", indent, below, way(l, inner))
				block(inner, indent+below)
			}
		}
	}
	block(0, "")
	return out.String()
}

// graph is a flow as nodes and edges.
type graph struct {
	name  string
	nodes []node
	edges []edge
}

type node struct{ id, label, shape string }

type edge struct {
	from, to, label string
	dashed          bool
}

// exit is where a list of steps ends: what comes next is joined to it.
type exit struct {
	from, label string
	dashed      bool
}

func newGraph(d *Definition, l *layout) *graph {
	g := &graph{name: d.Name, nodes: []node{{"start", d.Name, "round"}}}
	last := g.block(l, 0, []exit{{from: "start"}})
	g.nodes = append(g.nodes, node{"done", "done", "round"})
	g.join(last, "done")
	return g
}

func (g *graph) join(from []exit, to string) {
	for _, e := range from {
		g.edges = append(g.edges, edge{e.from, to, e.label, e.dashed})
	}
}

func (g *graph) block(l *layout, b int, from []exit) []exit {
	for _, at := range l.blocks[b].steps {
		place := l.steps[at]
		s := place.step
		id := "s_" + s.Name
		shape := "box"
		if k := s.kind(); k == kindIf || k == kindSwitch {
			shape = "diamond"
		} else if slices.Contains([]kind{kindSignal, kindApprove, kindSleep, kindWindow}, k) {
			shape = "hexagon"
		}
		g.nodes = append(g.nodes, node{id, s.Name + "\n" + brief(s), shape})
		g.join(from, id)
		from = nil
		for _, inner := range place.blocks {
			from = append(from, g.block(l, inner, []exit{{id, way(l, inner), l.blocks[inner].handler}})...)
		}
		switch k := s.kind(); {
		case k == kindIf && len(s.Else) == 0, k == kindSwitch && len(s.Else) == 0:
			from = append(from, exit{from: id, label: "else"})
		case k != kindIf && k != kindSwitch && k != kindBranches:
			from = append([]exit{{from: id}}, from...)
		}
	}
	return from
}

func (g *graph) dot() string {
	var out strings.Builder
	fmt.Fprintf(&out, "digraph %s {\n  node [shape=box, fontname=\"sans-serif\"];\n", dotText(g.name))
	shapes := map[string]string{"round": "oval", "diamond": "diamond", "hexagon": "hexagon"}
	for _, n := range g.nodes {
		fmt.Fprintf(&out, "  %s [label=%s", n.id, dotText(n.label))
		if shape := shapes[n.shape]; shape != "" {
			out.WriteString(", shape=" + shape)
		}
		out.WriteString("];\n")
	}
	for _, e := range g.edges {
		fmt.Fprintf(&out, "  %s -> %s", e.from, e.to)
		var more []string
		if e.label != "" {
			more = append(more, "label="+dotText(e.label))
		}
		if e.dashed {
			more = append(more, "style=dashed")
		}
		if more != nil {
			out.WriteString(" [" + strings.Join(more, ", ") + "]")
		}
		out.WriteString(";\n")
	}
	out.WriteString("}\n")
	return out.String()
}

// dotText quotes a text: in a double-quoted one of Graphviz a backslash and a quote are the two that mean something.
func dotText(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}

func (g *graph) mermaid() string {
	var out strings.Builder
	out.WriteString("flowchart TD\n")
	shapes := map[string][2]string{"round": {"([", "])"}, "box": {"[", "]"}, "diamond": {"{", "}"}, "hexagon": {"{{", "}}"}}
	for _, n := range g.nodes {
		around := shapes[n.shape]
		fmt.Fprintf(&out, "  %s%s%s%s\n", n.id, around[0], mermaidText(n.label), around[1])
	}
	for _, e := range g.edges {
		arrow := "-->"
		if e.dashed {
			arrow = "-.->"
		}
		if e.label != "" {
			arrow += "|" + mermaidText(e.label) + "|"
		}
		fmt.Fprintf(&out, "  %s %s %s\n", e.from, arrow, e.to)
	}
	return out.String()
}

// mermaidText quotes a text: what means something to Mermaid, or to the HTML that it makes, is written as an entity.
func mermaidText(text string) string {
	return `"` + strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;", "\n", "<br/>").Replace(text) + `"`
}
