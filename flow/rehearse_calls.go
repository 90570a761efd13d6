package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// PlannedCall is one call that a flow would make.
type PlannedCall struct {
	Step   string          `json:"step"` // of a sub-flow, behind the steps that call it: deploy/install
	Item   int             `json:"item,omitempty"`
	Tool   string          `json:"tool"`
	Device string          `json:"device,omitempty"`
	Input  json.RawMessage `json:"input"`
	Planned
	// Error is why the call would fail.
	Error *Error `json:"error,omitempty"`
}

// Bounds of a rehearsal.
const (
	planTimeout = 30 * time.Second // of one tool
	planItems   = 1000             // that are asked of a step with each
	planAtOnce  = 8
	planDepth   = 8 // of sub-flows
)

// rehearsing gathers the calls of a flow and its sub-flows.
type rehearsing struct {
	engine  *Engine
	ctx     context.Context
	calls   []PlannedCall
	secrets []string // of all of them
}

// plannedFlow is the plan of one flow, and what it returns as far as that is known.
type plannedFlow struct {
	out    Plan
	output any // nil: not known
}

func (r *rehearsing) flow(p *program, params map[string]any, under string, depth int) plannedFlow {
	r.secrets = append(r.secrets, p.secrets(params)...)
	pl := p.planner(params)
	pl.vars["execution"] = map[string]any{"id": "rehearsal", "flow": p.Name, "key": "", "actor": "", "reason": ""}
	pl.ask = func(i int, s *PlannedStep) {
		if s.Fate != Runs || len(s.Needs) > 0 || r.ctx.Err() != nil {
			return
		}
		switch plan := p.steps[i]; plan.kind() {
		case kindTool:
			r.step(pl, plan, p.Name, under)
		case kindFlow:
			r.subflow(pl, plan, under, depth)
		}
	}
	out := plannedFlow{out: pl.plan(params)}
	if p.result != nil {
		if value, needs := pl.value(p.result, pl.vars); needs == nil {
			out.output = value
		}
	}
	return out
}

// items are the variables for each item of a step; nil if they are not known.
func (r *rehearsing) items(pl *planner, plan *stepPlan) []map[string]any {
	if plan.each == nil {
		vars := maps.Clone(pl.vars)
		if plan.Repeat != nil {
			vars["index"] = int64(0)
		}
		return []map[string]any{vars}
	}
	value, needs := pl.eval(plan.each, pl.vars)
	list, _ := value.([]any)
	if needs != nil || len(list) > planItems {
		return nil
	}
	out := make([]map[string]any, len(list))
	for i, item := range list {
		out[i] = maps.Clone(pl.vars)
		out[i]["item"], out[i]["index"] = item, int64(i)
	}
	return out
}

// step asks the tool of one step about each item.
func (r *rehearsing) step(pl *planner, plan *stepPlan, flow, under string) {
	items := r.items(pl, plan)
	calls := make([]PlannedCall, len(items))
	var wait sync.WaitGroup
	slots := make(chan struct{}, planAtOnce)
	for i, vars := range items {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			calls[i] = r.call(plan, vars, flow, i)
			calls[i].Step = under + plan.Name
		})
	}
	wait.Wait()
	r.calls = append(r.calls, calls...)
	if items == nil || plan.Repeat != nil {
		return
	}
	outputs := make([]any, len(calls))
	for i := range calls {
		if calls[i].Error != nil || !calls[i].Known || len(calls[i].Output) == 0 {
			return
		}
		value, err := mapPlanned(plan, items[i], calls[i].Output)
		if err != nil {
			return
		}
		outputs[i] = value
	}
	pl.knows(plan, outputs)
}

// mapPlanned is what other steps see of an output.
func mapPlanned(plan *stepPlan, vars map[string]any, output json.RawMessage) (any, error) {
	value, err := expr.Decode(output, plan.returned)
	if err != nil || plan.mapped == nil {
		return value, err
	}
	vars = maps.Clone(vars)
	vars["output"] = value
	return plan.mapped.eval(vars)
}

// knows notes what a step would return.
func (pl *planner) knows(plan *stepPlan, outputs []any) {
	steps, _ := pl.vars["steps"].(map[string]any)
	if plan.each != nil {
		steps[plan.Name] = map[string]any{"items": outputs}
	} else if len(outputs) == 1 {
		steps[plan.Name] = outputs[0]
	}
}

// call asks about one call.
func (r *rehearsing) call(plan *stepPlan, vars map[string]any, flow string, item int) PlannedCall {
	out := PlannedCall{Item: item, Tool: plan.Tool}
	input, err := plan.input(vars)
	if err == nil {
		out.Device, err = textOf(plan.on, vars, "on", plan.On, "the name of a device")
	}
	if err != nil {
		out.Error = failure(CodeExpression, "%v", err)
		return out
	}
	out.Input = input
	key := fmt.Sprintf("rehearsal/%s/%d", plan.Name, item)
	call := Call{
		ID: key, Execution: "rehearsal", Flow: flow, Step: plan.Name, Item: item, Attempt: 1, Key: key,
		Device: out.Device, Tool: plan.Tool, Input: input, Plan: true, Timeout: min(time.Duration(plan.Timeout), planTimeout),
	}
	planned, err := r.engine.planCall(r.ctx, call)
	out.Planned = planned
	if err != nil && !errors.As(err, &out.Error) {
		out.Error = &Error{Code: CodePlan, Message: err.Error()}
	}
	return out
}

// planCall asks a tool, here or on a device, what a call would touch.
func (e *Engine) planCall(ctx context.Context, call Call) (Planned, error) {
	m, _ := e.config.Tools.Manifest(call.Tool)
	switch {
	case !m.Plan && m.Effect != Pure:
		return Planned{}, nil
	case call.Device == "":
		return e.config.Tools.Plan(ctx, call, e.config.Env)
	case e.config.Remote == nil:
		return Planned{}, nil
	}
	bounded, cancel := context.WithTimeout(ctx, call.Timeout+time.Second)
	defer cancel()
	result := e.config.Remote.Run(bounded, call)
	e.config.Remote.Acknowledge(call)
	return e.config.Tools.ReadPlan(call.Tool, result)
}

// subflow plans the flow that a step calls.
func (r *rehearsing) subflow(pl *planner, plan *stepPlan, under string, depth int) {
	p, err := r.engine.program(r.ctx, plan.flowName, plan.flowVersion)
	items := r.items(pl, plan)
	switch {
	case errors.Is(err, ErrNotFound):
		r.calls = append(r.calls, PlannedCall{Step: under + plan.Name, Tool: plan.Flow, Error: failure(CodeSubflow, "%s", noFlow(plan.Flow))})
		return
	case err != nil || items == nil || depth >= planDepth:
		return
	}
	outputs := make([]any, 0, len(items))
	for i, vars := range items {
		input, err := plan.input(vars)
		var given map[string]any
		if err == nil {
			given, err = decodeParams(input)
		}
		var bound map[string]any
		if err == nil {
			bound, err = p.bind(given)
		}
		if err != nil {
			r.calls = append(r.calls, PlannedCall{Step: under + plan.Name, Item: i, Tool: plan.Flow, Input: input, Error: failure(CodeInput, "%v", err)})
			return
		}
		if sub := r.flow(p, bound, under+plan.Name+"/", depth+1); sub.output != nil {
			if value, err := mapPlanned(plan, vars, mustJSON(sub.output)); err == nil {
				outputs = append(outputs, value)
			}
		}
	}
	if len(outputs) == len(items) && plan.Repeat == nil {
		pl.knows(plan, slices.Clip(outputs))
	}
}
