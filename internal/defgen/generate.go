// Package defgen makes definitions of flows from seeds, over everything that a document may say, and breaks each at one point. Tests and the benchmark of flow
// hold what is refused, and where, to it.
package defgen

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

type (
	// In is what the tool make takes.
	In struct {
		Text string   `json:"text"`
		N    int      `json:"n,omitempty"`
		OK   bool     `json:"ok,omitempty"`
		List []string `json:"list,omitempty"`
	}
	// Out is what it returns.
	Out struct {
		Text string   `json:"text"`
		N    int      `json:"n"`
		OK   bool     `json:"ok"`
		List []string `json:"list"`
	}
)

// Tools are those of the flows that are made. They do nothing.
func Tools() *flow.Tools {
	tools := flow.NewTools()
	flow.Func(tools, "make", func(context.Context, In) (Out, error) { return Out{}, nil }, flow.WithEffect(flow.Keyed), flow.WithUndo("unmake"))
	flow.Func(tools, "unmake", func(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil })
	tools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Input: []byte(`{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}`),
		Output: []byte(`{"type":"object","properties":{"text":{"type":"string"},"n":{"type":"integer"},"ok":{"type":"boolean"},"list":{"type":"array","items":{"type":"string"}}},"required":["text"]}`)})
	return tools
}

// Called is the flow, of the name called, that those which are made run.
const Called = "flow: called\nparams: {text: {type: string, required: true}, n: {type: int, max: 100}}\noutput: {text: \"${steps.a.text}\", n: 3, ok: true, list: \"${steps.a.list}\"}\nsteps: [{name: a, tool: make, with: {text: \"${params.text}\"}}]"

// term is an expression that a generated flow may use.
type term struct {
	source, kind string
	guard        string // a step that may not have run
}

// generator makes good definitions, over everything that a document may say.
type generator struct {
	r     *rand.Rand
	names int
	terms []term
	runs  bool // on no device, and without steps that are skipped: what refers to them would fail
}

// Definition returns that of a seed.
func Definition(seed uint64) flow.Definition {
	return (&generator{r: rand.New(rand.NewPCG(seed, 7))}).definition(seed)
}

// Running returns one that runs to its end.
func Running(seed uint64) flow.Definition {
	return (&generator{r: rand.New(rand.NewPCG(seed, 7)), runs: true}).definition(seed)
}

func (g *generator) definition(seed uint64) flow.Definition {
	d := flow.Definition{Name: fmt.Sprintf("made-%d", seed)}
	for _, kind := range []string{"string", "int", "bool", "list<string>"} {
		name := "p" + fmt.Sprint(g.names)
		g.names++
		p := flow.Param{Name: name, Type: kind}
		switch {
		case g.one(3):
			p.Required = true
		case kind == "int" && g.one(2):
			p.Min, p.Max, p.Default = new(float64(0)), new(float64(100)), int64(g.r.IntN(100))
		case kind == "string" && g.one(2):
			p.Pattern, p.Default, p.Title = "[a-z ]*", "some text", "A text: with marks"
		case kind == "string" && g.one(2):
			p.Enum, p.Default = []any{"a", "b", "no", "3"}, "no"
		}
		d.Params = append(d.Params, p)
		g.terms = append(g.terms, term{source: "params." + name, kind: kind})
	}
	if g.one(3) {
		d.Locks = []string{"module/" + g.text()}
	}
	if g.one(3) {
		d.Start = &flow.Starters{By: []string{"ann", "role:operator"}}
	}
	if g.one(3) {
		d.Priority = new(g.r.IntN(10))
	}
	d.Steps = g.steps(2+g.r.IntN(7), 0)
	if g.one(2) {
		d.Output = map[string]any{"n": g.typed("int"), "all": []any{g.typed("string"), 2.5, nil, true, map[string]any{"deep": g.text()}}}
	}
	return d
}

func (g *generator) one(in int) bool { return g.r.IntN(in) == 0 }

func (g *generator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

// expression returns an expression of a kind.
func (g *generator) expression(kind string) string {
	var fits []term
	for _, t := range g.terms {
		if t.kind == kind {
			fits = append(fits, t)
		}
	}
	nothing := map[string]string{"string": "'none'", "int": "7", "bool": "(params.p1 > 3)", "list<string>": "['x', 'y']"}[kind]
	if len(fits) == 0 {
		return nothing
	}
	t := fits[g.r.IntN(len(fits))]
	if t.guard != "" {
		return fmt.Sprintf("(has(steps.%s) ? %s : %s)", t.guard, t.source, nothing)
	}
	switch kind {
	case "string":
		switch g.r.IntN(4) {
		case 0:
			return t.source + " + '-' + string(" + g.expression("int") + ")"
		case 1:
			return t.source + ".replace('a', 'b')"
		}
	case "int":
		if g.one(3) {
			return t.source + " * 2 + " + g.expression("list<string>") + ".size()"
		}
	case "bool":
		if g.one(2) {
			return g.expression("int") + " > " + g.expression("int")
		}
	case "list<string>":
		if g.one(3) {
			return t.source + ".filter(x, x != params.p0)"
		}
	}
	return t.source
}

// typed is a value of an input: an expression, or a constant.
func (g *generator) typed(kind string) any {
	if g.one(4) {
		switch kind {
		case "string":
			return g.pick("plain", "a: b", "3", "true", "- x", "# no comment", "$${literal}", "two\nlines", "it's \"quoted\"")
		case "int":
			return int64(g.r.IntN(50))
		case "bool":
			return g.one(2)
		case "list<string>":
			return []any{"a", "b c", "1.5"}
		}
	}
	return "${" + g.expression(kind) + "}"
}

// text is a text with expressions in it.
func (g *generator) text() string {
	return g.pick("m ", "module/", "a #b: ") + "${params.p0}" + g.pick("", " and ${params.p1}", "!")
}

func (g *generator) condition() string {
	return g.expression("int") + g.pick(" > ", " < ", " == ") + fmt.Sprint(g.r.IntN(9)+1) + g.pick("", " && "+g.expression("bool"))
}

func (g *generator) name() string {
	g.names++
	return "s" + fmt.Sprint(g.names)
}

// with is an input for make.
func (g *generator) with() map[string]any {
	out := map[string]any{"text": g.typed("string")}
	for name, kind := range map[string]string{"n": "int", "ok": "bool", "list": "list<string>"} {
		if g.names%2 == len(name)%2 {
			out[name] = kind
		}
	}
	for _, name := range []string{"n", "ok", "list"} { // in an order that the seed decides
		if kind, there := out[name]; there {
			out[name] = g.typed(fmt.Sprint(kind))
		}
	}
	return out
}

// block makes steps in a block of their own; what they add is seen behind it under guards, or as it is.
func (g *generator) block(n, depth int, guarded bool) ([]flow.Step, []term) {
	before := slices.Clone(g.terms)
	steps := g.steps(n, depth)
	added := g.terms[len(before):]
	if guarded {
		for i := range added {
			if added[i].guard == "" {
				added[i].guard = strings.Split(added[i].source, ".")[1]
			}
		}
	}
	added = slices.Clone(added)
	g.terms = before
	return steps, added
}

func (g *generator) steps(n, depth int) []flow.Step {
	var out []flow.Step
	for range n {
		out = append(out, g.step(depth))
	}
	return out
}

func (g *generator) step(depth int) flow.Step {
	s := flow.Step{Name: g.name()}
	if g.one(4) {
		s.Title, s.Stage = "Do: "+s.Name, "stage"
	}
	if g.one(5) && !g.runs {
		s.When = g.condition()
	}
	kinds := []string{"tool", "tool", "tool", "flow", "notify", "signal", "approve", "sleep", "window"}
	if !g.runs {
		kinds = append(kinds, "device")
	}
	if depth < 3 {
		kinds = append(kinds, "if", "switch", "branches", "if")
	}
	switch g.pick(kinds...) {
	case "tool":
		s.Tool = "make"
		g.leaf(&s, depth)
	case "device":
		s.Tool, s.On = "touch", "${"+g.expression("string")+"}"
		s.With = map[string]any{"text": g.typed("string")}
		if g.one(2) {
			s.Heartbeat = flow.Duration(10 * time.Second)
		}
		g.yield(s.Name)
	case "flow":
		s.Flow = "called"
		s.With = map[string]any{"text": g.typed("string"), "n": g.typed("int")}
		g.yield(s.Name)
	case "notify":
		s.Notify = &flow.Notify{Severity: g.pick("info", "warning", "critical"), Text: g.text()}
	case "signal":
		s.Signal = "ready/" + g.text()
		if g.one(2) {
			s.Timeout = flow.Duration(time.Hour)
		}
		g.terms = append(g.terms, term{source: "steps." + s.Name + ".from", kind: "string"})
	case "approve":
		s.Approve = &flow.Approve{Text: g.text(), Count: 1}
		if g.one(2) {
			s.Approve.By, s.Approve.Count = []string{"ann", "bob"}, 2
		}
		g.terms = append(g.terms, term{source: "steps." + s.Name + ".comment", kind: "string"})
	case "sleep":
		s.Sleep = g.pick("10m", "90", "${"+g.expression("int")+"}", "${params.p1}m")
	case "window":
		s.Window = &flow.Window{From: "22:00", To: "05:30", Zone: g.pick("", "UTC", "Asia/Shanghai")}
		if g.one(2) {
			s.Window.Days = []string{"mon", "sun"}
		}
	case "if":
		s.If = g.condition()
		var added, more []term
		s.Then, added = g.block(1+g.r.IntN(2), depth+1, true)
		if g.one(2) {
			s.Else, more = g.block(1, depth+1, true)
		}
		g.terms = append(append(g.terms, added...), more...)
	case "switch":
		var all []term
		for i := range 1 + g.r.IntN(3) {
			steps, added := g.block(1, depth+1, true)
			s.Switch = append(s.Switch, flow.Case{When: fmt.Sprintf("params.p1 == %d || %s", i, g.condition()), Steps: steps})
			all = append(all, added...)
		}
		g.terms = append(g.terms, all...)
	case "branches":
		var all []term
		for i := range 1 + g.r.IntN(3) {
			steps, added := g.block(1+g.r.IntN(2), depth+1, false)
			s.Branches = append(s.Branches, flow.Branch{Name: fmt.Sprintf("way%d", i), Steps: steps})
			all = append(all, added...)
		}
		g.terms = append(g.terms, all...)
	}
	return s
}

// yield makes the output of a step seen.
func (g *generator) yield(name string) {
	for _, field := range []struct{ name, kind string }{{"text", "string"}, {"n", "int"}, {"ok", "bool"}, {"list", "list<string>"}} {
		g.terms = append(g.terms, term{source: "steps." + name + "." + field.name, kind: field.kind})
	}
}

// leaf says more about a step that runs make.
func (g *generator) leaf(s *flow.Step, depth int) {
	outside := slices.Clone(g.terms)
	each := g.one(4)
	if each {
		s.Each = g.expression("list<string>")
		g.terms = append(g.terms, term{source: "item", kind: "string"}, term{source: "index", kind: "int"})
		if g.one(2) {
			s.Parallel = 1 + g.r.IntN(8)
		}
		if g.one(2) {
			s.Batch = 1 + g.r.IntN(8)
		}
		if g.one(2) {
			s.Quota = g.pick("2", "10%")
		}
	}
	s.With = g.with()
	if g.one(4) {
		s.Exclusive = g.text()
	}
	if g.one(3) {
		s.Retry = flow.Retry{Attempts: 1 + g.r.IntN(4), Backoff: flow.Duration(200 * time.Millisecond), Max: flow.Duration(5 * time.Second), On: []string{"busy", "timeout"}}
	}
	if g.one(3) {
		s.Timeout, s.Total = flow.Duration(30*time.Second), flow.Duration(90*time.Minute)
	}
	if g.one(5) && s.Quota == "" {
		s.OnFailure = flow.OnFailure(g.pick("fail", "skip", "pause"))
	}
	if g.one(6) {
		s.Undo = &flow.Undo{None: true}
	} else if g.one(5) {
		s.Undo = &flow.Undo{Tool: "unmake", With: map[string]any{"of": g.typed("string")}, Retry: flow.Retry{Attempts: 2}, OnFailure: flow.Skip}
	}
	mapped := g.one(4)
	if mapped {
		s.Output = map[string]any{"text": "${output.text + " + g.expression("string") + "}", "n": "${output.n}", "ok": "${output.ok}", "list": "${output.list}"}
	}
	if !each && g.one(4) {
		s.Repeat = &flow.Repeat{Until: g.pick("output.ok", "index > 3 || output.n == "+g.expression("int")), Max: 60}
		if g.one(2) {
			s.Repeat.Every = flow.Duration(10 * time.Second)
		}
	}
	g.terms = outside
	if s.OnFailure == "" && g.one(5) && depth < 3 {
		s.OnFailure = flow.Handle
		var added []term
		failed := append(slices.Clone(outside), term{source: "failure.message", kind: "string"})
		g.terms = failed
		s.Handler, added = g.block(1, depth+1, true)
		g.terms = append(outside, added...)
	}
	switch {
	case each && s.OnFailure != flow.Skip && s.Quota == "":
		g.terms = append(g.terms, term{source: "steps." + s.Name + ".items.map(x, x.text)", kind: "list<string>"})
	case each:
		g.terms = append(g.terms, term{source: "steps." + s.Name + ".items.size()", kind: "int"})
	default:
		g.yield(s.Name)
	}
}
