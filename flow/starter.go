package flow

import (
	"fmt"
	"slices"
	"strings"
)

// mayStart checks who starts the flow. A sub-flow is started by whoever started the flow that calls it.
func (p *program) mayStart(o *startOptions) error {
	if o.caller != nil {
		o.as = o.caller.as
		o.exempt = o.caller.exempt
	}
	if len(o.as) == 0 && o.actor != "" {
		o.as = []string{o.actor}
	}
	if p.Start == nil || len(p.Start.By) == 0 {
		return nil
	}
	for _, name := range o.as {
		if slices.Contains(p.Start.By, name) {
			return nil
		}
	}
	who := "nobody"
	if len(o.as) > 0 {
		who = strings.Join(o.as, ", ")
	}
	return fmt.Errorf("%w: flow %s may be started by %s, not by %s", ErrDenied, p.Name, strings.Join(p.Start.By, ", "), who)
}

// started is the first event of an execution.
func (o *startOptions) started(p *program, params map[string]any) Event {
	e := Event{Kind: EventStarted, Flow: p.Name, Version: p.Version, Key: o.key, Actor: o.actor, Reason: o.reason, Params: params, Exempt: o.exempt}
	if len(o.as) != 1 || o.as[0] != o.actor {
		e.As = o.as
	}
	if o.caller != nil {
		e.Parent, e.Root = o.caller.id, o.caller.root
	}
	return e
}

// module is the module that the execution is about: its parameter "module".
func (x *Execution) module() string {
	name, _ := x.Params["module"].(string)
	return name
}

// room refuses a start while too many executions are open. What is under way goes on, its sub-flows too.
func (e *Engine) room(o *startOptions) error {
	if o.caller != nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if busy := e.pressure.refuse(len(e.runs)); busy != nil {
		return busy
	}
	return nil
}
