package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// Plan is what a flow would do with given parameters, as far as that follows from them alone. Nothing is run for it.
type Plan struct {
	Flow    string         `json:"flow"`
	Version int            `json:"version"`
	Title   string         `json:"title,omitempty"`
	Params  map[string]any `json:"params"` // as the flow would see them: defaults filled in, secrets struck out
	Locks   []string       `json:"locks,omitempty"`
	Steps   []PlannedStep  `json:"steps"` // all, in document order: one that holds others comes before them
	Output  any            `json:"output,omitempty"`
}

// Fate says whether a planned step would run.
type Fate string

const (
	Runs    Fate = "runs"    // if the flow comes so far
	Open    Fate = "open"    // it depends on what steps before it find
	RunsNot Fate = "not run" // its condition does not hold, or its way is not taken
)

// PlannedStep is one step of a Plan. In texts and values, what is not known before the steps in Needs have run stands as it does in the document, as
// ${expression}.
type PlannedStep struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // tool, flow, notify, if, switch, branches, signal, approve, sleep or window
	Title string `json:"title,omitempty"`
	Stage string `json:"stage,omitempty"`
	In    string `json:"in,omitempty"`  // the step that holds it
	Way   string `json:"way,omitempty"` // within that: then, else, case 0, a branch's name, handler
	Depth int    `json:"depth,omitempty"`

	Fate   Fate   `json:"fate"`
	Why    string `json:"why,omitempty"`    // of a fate that is not Runs
	Tool   string `json:"tool,omitempty"`   // or the flow that it calls
	Device string `json:"device,omitempty"` // on which it runs
	Input  any    `json:"input,omitempty"`  // of a step with each, what stands in the document
	Items  *int   `json:"items,omitempty"`  // of a step with each, if the list is known
	// First are the first hundred of those items, if they differ.
	First []PlannedItem `json:"first,omitempty"`

	Each  string   `json:"each,omitempty"`  // the list's expression otherwise
	Waits string   `json:"waits,omitempty"` // for what: a signal, an approval, a time, a window
	Says  string   `json:"says,omitempty"`  // a notice
	Takes string   `json:"takes,omitempty"` // the way taken, of if and switch, if that is known: then, else, case 0, none
	Fails string   `json:"fails,omitempty"` // why it would fail as things stand: there is no such flow
	Needs []string `json:"needs,omitempty"` // the steps whose outputs decide what is open about it
}

// PlannedItem is what one item of a step with each runs with.
type PlannedItem struct {
	Device string `json:"device,omitempty"`
	Input  any    `json:"input,omitempty"`
}

const maxPlannedItems = 100

// Plan works out what a start would do: each step's input where it follows from the parameters alone, on which steps it depends otherwise, and which
// ways are taken or open. name is that of a flow, or NAME@VERSION. Parameters are checked as by Start. It runs, keeps and locks nothing.
func (e *Engine) Plan(ctx context.Context, name string, params map[string]any) (Plan, error) {
	flow, version, err := parseCall(name)
	if err != nil {
		return Plan{}, fmt.Errorf("flow: plan %s: %w: %w", name, ErrInvalid, err)
	}
	p, err := e.program(ctx, flow, version)
	if err != nil {
		return Plan{}, fmt.Errorf("flow: plan %s: %w", name, err)
	}
	bound, err := p.bind(params)
	if err != nil {
		return Plan{}, fmt.Errorf("flow: %w", err)
	}
	out := p.plan(bound)
	e.missing(ctx, p, &out)
	return redact(out, p.secrets(bound)), nil
}

// missing says of the steps of a plan which call a flow that is not there.
func (e *Engine) missing(ctx context.Context, p *program, out *Plan) {
	for i, plan := range p.steps {
		if plan.flowName == "" || out.Steps[i].Fate == RunsNot {
			continue
		}
		if _, err := e.program(ctx, plan.flowName, plan.flowVersion); errors.Is(err, ErrNotFound) {
			out.Steps[i].Fails = noFlow(plan.Flow)
		}
	}
}

func noFlow(call string) string {
	return fmt.Sprintf("there is no flow %s; save it", call)
}

// planner works a plan out.
type planner struct {
	p     *program
	vars  map[string]any
	fates []Fate   // by step
	ways  []Fate   // by block
	whys  []string // by block
	// ask is told each step as it is planned, and may add what the step would return to vars; nil: nobody is asked.
	ask func(i int, s *PlannedStep)
}

func (p *program) planner(params map[string]any) *planner {
	return &planner{
		p: p, fates: make([]Fate, len(p.steps)), ways: make([]Fate, len(p.blocks)), whys: make([]string, len(p.blocks)),
		vars: map[string]any{"params": params, "steps": map[string]any{}},
	}
}

func (p *program) plan(params map[string]any) Plan { return p.planner(params).plan(params) }

func (pl *planner) plan(params map[string]any) Plan {
	p := pl.p
	pl.ways[0] = Runs
	out := Plan{Flow: p.Name, Version: p.Version, Title: p.Title, Params: params, Steps: make([]PlannedStep, len(p.steps))}
	for i, lock := range p.locks {
		text, _ := pl.text(lock, p.Locks[i], pl.vars)
		out.Locks = append(out.Locks, text)
	}
	for i := range p.steps {
		out.Steps[i] = pl.step(i)
	}
	if p.result != nil {
		out.Output, _ = pl.value(p.result, pl.vars)
	}
	return out
}

// eval works an expression out, if what it refers to is known. A step that does not run is known to have no output. If && and || decide without what
// is not known, so does eval; but not if has() asks for that.
func (pl *planner) eval(x *expr.Expr, vars map[string]any) (value any, needs []string) {
	asked := false
	for _, ref := range x.Refs {
		at, step := pl.p.index[ref.Field]
		switch {
		case ref.Var == "steps" && step:
			known, _ := vars["steps"].(map[string]any)
			if pl.fates[at] == RunsNot || known[ref.Field] != nil || slices.Contains(needs, ref.Field) {
				continue
			}
			needs = append(needs, ref.Field)
			asked = asked || ref.Test
		case vars[ref.Var] == nil:
			needs, asked = append(needs, ref.Var), true
		}
	}
	if asked {
		return nil, needs
	}
	value, err := x.Eval(vars)
	if err != nil && len(needs) == 0 {
		return nil, []string{"what fails: " + err.Error()}
	}
	if err != nil {
		return nil, needs
	}
	return value, nil
}

// value works a template out as far as it is known.
func (pl *planner) value(t *template, vars map[string]any) (value any, needs []string) {
	join := func(more []string) {
		for _, one := range more {
			if !slices.Contains(needs, one) {
				needs = append(needs, one)
			}
		}
	}
	switch {
	case t == nil:
		return nil, nil
	case t.whole != nil:
		if value, needs = pl.eval(t.whole, vars); needs != nil {
			return "${" + t.whole.Source + "}", needs
		}
		return value, nil
	case t.text != nil:
		var b strings.Builder
		for _, piece := range t.text {
			if piece.expr == nil {
				b.WriteString(piece.text)
				continue
			}
			if one, open := pl.eval(piece.expr, vars); open != nil {
				join(open)
				b.WriteString("${" + piece.expr.Source + "}")
			} else {
				b.WriteString(expr.Text(one))
			}
		}
		return b.String(), needs
	case t.list != nil:
		out := make([]any, len(t.list))
		for i, item := range t.list {
			var open []string
			out[i], open = pl.value(item, vars)
			join(open)
		}
		return out, needs
	case t.object != nil:
		out := make(map[string]any, len(t.object))
		for name, item := range t.object {
			var open []string
			out[name], open = pl.value(item, vars)
			join(open)
		}
		slices.Sort(needs)
		return out, needs
	}
	return t.value, nil
}

func (pl *planner) text(t *template, source string, vars map[string]any) (string, []string) {
	value, needs := pl.value(t, vars)
	if t == nil {
		return source, nil
	}
	return expr.Text(value), needs
}

// step plans one step, and decides on the ways that it holds.
func (pl *planner) step(i int) PlannedStep {
	plan := pl.p.steps[i]
	s := PlannedStep{Name: plan.Name, Kind: string(plan.kind()), Title: plan.Title, Stage: plan.Stage, Fate: pl.ways[plan.block], Why: pl.whys[plan.block], Tool: plan.Tool + plan.Flow}
	if plan.parent >= 0 {
		s.In, s.Way = pl.p.steps[plan.parent].Name, pl.p.blocks[plan.block].name
	}
	for up := plan.parent; up >= 0; up = pl.p.steps[up].parent {
		s.Depth++
	}
	need := func(needs []string) {
		for _, one := range needs {
			if !slices.Contains(s.Needs, one) {
				s.Needs = append(s.Needs, one)
			}
		}
	}
	if plan.when != nil && s.Fate != RunsNot {
		switch value, needs := pl.eval(plan.when, pl.vars); {
		case needs != nil:
			s.Fate, s.Why = Open, "if "+plan.When
			need(needs)
		case value != true:
			s.Fate, s.Why = RunsNot, "when is false: "+plan.When
		}
	}
	pl.fates[i] = s.Fate
	need(pl.choose(plan, &s))
	need(pl.does(plan, &s))
	if s.Fate == RunsNot {
		s.Needs = nil
	}
	if pl.ask != nil {
		pl.ask(i, &s)
	}
	return s
}

// choose decides on the blocks of a step.
func (pl *planner) choose(plan *stepPlan, s *PlannedStep) (needs []string) {
	set := func(b int, fate Fate, why string) { pl.ways[b], pl.whys[b] = fate, why }
	taken := s.Fate == RunsNot // then no way is
	for j, condition := range plan.cases {
		b, source := plan.blocks[j], plan.If
		if plan.If == "" {
			source = plan.Switch[j].When
		}
		value, open := pl.eval(condition, pl.vars)
		switch {
		case taken:
			set(b, RunsNot, "its way is not taken")
		case open != nil:
			needs = append(needs, open...)
			set(b, Open, "if "+source)
		case value == true && needs == nil:
			s.Takes, taken = pl.p.blocks[b].name, true
			set(b, s.Fate, s.Why)
		case value == true:
			taken = true
			set(b, Open, "if no case before it holds")
		default:
			set(b, RunsNot, "is false: "+source)
		}
	}
	for j, b := range plan.blocks[len(plan.cases):] {
		switch block := pl.p.blocks[b]; {
		case s.Fate == RunsNot:
			set(b, RunsNot, "its way is not taken")
		case block.handler:
			set(b, Open, "if "+plan.Name+" fails")
		case len(plan.Branches) > 0:
			set(b, s.Fate, s.Why)
		case j == 0 && taken && needs == nil:
			set(b, RunsNot, "its way is not taken")
		case needs != nil:
			set(b, Open, "if no condition before it holds")
		default:
			s.Takes, taken = block.name, true
			set(b, s.Fate, s.Why)
		}
	}
	if len(plan.cases) > 0 && needs == nil && !taken {
		s.Takes = "none"
	}
	return needs
}

// items works the inputs of the first items of a list out.
func (pl *planner) items(plan *stepPlan, list []any) []PlannedItem {
	if !plan.with.uses("item", "index") && !plan.on.uses("item", "index") {
		return nil
	}
	var out []PlannedItem
	vars := maps.Clone(pl.vars)
	for i, item := range list[:min(len(list), maxPlannedItems)] {
		vars["item"], vars["index"] = item, int64(i)
		one := PlannedItem{}
		one.Input, _ = pl.value(plan.with, vars)
		if plan.on != nil {
			one.Device, _ = pl.text(plan.on, plan.On, vars)
		}
		out = append(out, one)
	}
	return out
}

// does says what a step without blocks does.
func (pl *planner) does(plan *stepPlan, s *PlannedStep) (needs []string) {
	vars := pl.vars
	if plan.each != nil {
		value, open := pl.eval(plan.each, vars)
		needs = append(needs, open...)
		if list, ok := value.([]any); ok && open == nil {
			s.Items = new(len(list))
			s.First = pl.items(plan, list)
		} else {
			s.Each = plan.Each
		}
	}
	add := func(more []string) { needs = append(needs, more...) }
	if plan.with != nil {
		value, open := pl.value(plan.with, vars)
		s.Input = value
		add(open)
	}
	if plan.on != nil {
		text, open := pl.text(plan.on, plan.On, vars)
		s.Device = text
		add(open)
	}
	switch plan.kind() {
	case kindNotify:
		text, open := pl.text(plan.notice, plan.Notify.Text, vars)
		s.Says = text
		add(open)
	case kindSignal:
		text, open := pl.text(plan.signal, plan.Signal, vars)
		s.Waits = "the signal " + text
		add(open)
	case kindApprove:
		text, open := pl.text(plan.question, plan.Approve.Text, vars)
		s.Waits = fmt.Sprintf("%d to approve: %s", plan.Approve.Count, text)
		add(open)
	case kindSleep:
		text, open := pl.text(plan.sleep, plan.Sleep, vars)
		s.Waits = "a time: " + text
		add(open)
	case kindWindow:
		s.Waits = "the window " + plan.Window.From + " to " + plan.Window.To
		if plan.window != nil {
			s.Waits = "the window " + plan.window.text
		}
	}
	return slices.DeleteFunc(needs, func(one string) bool {
		return one == "item" || one == "index" || one == "failure" || one == "execution"
	})
}
