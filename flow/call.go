package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	// errSilent is the cause with which an attempt is stopped that missed its heartbeat.
	errSilent = errors.New("flow: the tool has written nothing for longer than its heartbeat")
	// errUnbegun is the error of an attempt that was stopped before anything of the tool ran.
	errUnbegun = &Error{Code: CodeCancelled, Message: "it was stopped before it began"}
)

// Run runs one attempt here and checks what it takes and returns. env is added to the environment of a process.
// It never panics with a tool and never fails otherwise than by the result's error.
func (t *Tools) Run(ctx context.Context, call Call, env []string) (result Result) {
	one := t.get(call.Tool)
	if one == nil || one.run == nil {
		return Result{Error: failure(CodeTool, "tool %s is not registered where it should run; register it and retry", call.Tool)}
	}
	if one.wrong != nil {
		return Result{Error: failure(CodeTool, "the manifest of %s is wrong: %v", call.Tool, one.wrong)}
	}
	if !one.runsHere() {
		return Result{Error: failure(CodeTool, "tool %s runs on %v, not here", call.Tool, one.Platforms)}
	}
	if call.Plan && !one.Plan && one.Effect != Pure {
		return Result{Error: failure(CodePlan, "%s cannot tell what it would do", call.Tool)}
	}
	if !call.Undo && !call.Probe {
		if err := validate(one.accepts, call.Input); err != nil {
			return Result{Error: failure(CodeInput, "the input of %s: %v", call.Tool, err)}
		}
	}
	timeout := call.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	heartbeat := call.Heartbeat
	if heartbeat <= 0 {
		heartbeat = one.Heartbeat
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if heartbeat > 0 {
		bounded, call.Log = beating(bounded, heartbeat, call.Log)
	}
	result = one.run(bounded, call, env)
	result.Ran.Version, result.Ran.Digest = one.Version, one.Digest
	if result.Error == errUnbegun && ctx.Err() == nil {
		result.Error = &Error{Code: CodeTimeout, Message: fmt.Sprintf("%s did not begin within %s: all its processes are busy", call.Tool, timeout)}
		return result
	}
	if result.Error != nil && result.Error != errUnbegun {
		// A tool that was stopped half way may or may not have had its effect, whatever it says.
		switch {
		case ctx.Err() != nil:
			result.Error = &Error{Code: CodeCancelled, Message: call.Tool + " was stopped", Unknown: true}
		case errors.Is(context.Cause(bounded), errSilent):
			result.Error = &Error{Code: CodeHeartbeat, Message: fmt.Sprintf("%s wrote nothing to its log for %s", call.Tool, heartbeat), Unknown: true}
		case bounded.Err() != nil:
			result.Error = &Error{Code: CodeTimeout, Message: fmt.Sprintf("%s did not end within %s", call.Tool, timeout), Unknown: true}
		}
	}
	if result.Error != nil {
		return result
	}
	return one.checked(call, result)
}

// checked holds a result to what the manifest promises.
func (one *tool) checked(call Call, result Result) Result {
	if len(result.Output) == 0 {
		result.Output = json.RawMessage("{}")
	}
	if call.Undo || call.Probe || call.Plan && one.Plan || one.typed && len(result.Output) <= MaxOutput {
		return result
	}
	if len(result.Output) > MaxOutput {
		result.Error = failure(CodeOutput, "%s returned %d bytes, at most %d are kept; return a reference instead", call.Tool, len(result.Output), MaxOutput)
	} else if err := validate(one.returns, result.Output); err != nil {
		result.Error = failure(CodeOutput, "the output of %s: %v", call.Tool, err)
	}
	if result.Error != nil {
		result.Output = nil
	}
	return result
}

// beating returns a context that ends when nothing is logged for longer than the heartbeat.
func beating(ctx context.Context, heartbeat time.Duration, log func([]byte)) (context.Context, func([]byte)) {
	ctx, cancel := context.WithCancelCause(ctx) // ended by its parent
	timer := time.AfterFunc(heartbeat, func() { cancel(errSilent) })
	context.AfterFunc(ctx, func() { timer.Stop() })
	return ctx, func(p []byte) {
		if ctx.Err() == nil {
			timer.Reset(heartbeat)
		}
		if log != nil {
			log(p)
		}
	}
}

// Planned is what a tool says it would do.
type Planned struct {
	Touches []Touch         `json:"touches"`
	Output  json.RawMessage `json:"output,omitempty"` // that it expects to return, if it can tell
	Text    string          `json:"text,omitempty"`   // what it wants people to know
	Known   bool            `json:"known"`            // false: the tool has no plan mode, and was not run
}

// Touch is one thing that a call would change.
type Touch struct {
	Kind   string `json:"kind"`             // as in device, file, process
	Name   string `json:"name"`             // which one
	Change string `json:"change,omitempty"` // what would become of it
}

// Plan asks a tool here what a call would touch, and touches nothing: a tool with a plan mode is run with ZHIYUN_PLAN=1, a pure one as ever, since it
// touches nothing; any other is not run, and Known is false. The error is a *Error.
func (t *Tools) Plan(ctx context.Context, call Call, env []string) (Planned, error) {
	call.Plan = true
	return planned(t.get(call.Tool), t.Run(ctx, call, env))
}

// ReadPlan reads the result of a call of a tool with Call.Plan set that ran elsewhere.
func (t *Tools) ReadPlan(tool string, result Result) (Planned, error) {
	return planned(t.get(tool), result)
}

func planned(one *tool, result Result) (Planned, error) {
	if e := result.Error; e != nil {
		if e.Code == CodePlan {
			return Planned{}, nil
		}
		return Planned{}, e
	}
	if one == nil || !one.Plan {
		return Planned{Output: result.Output, Known: true}, nil
	}
	var said Planned
	if err := json.Unmarshal(result.Output, &said); err != nil {
		return Planned{}, failure(CodeOutput, `the plan of %s: %v; want {"touches": [{"kind": "...", "name": "...", "change": "..."}], "output": {...}}`, one.Name, err)
	}
	for i, touch := range said.Touches {
		if touch.Kind == "" || touch.Name == "" {
			return Planned{}, failure(CodeOutput, "the plan of %s: touches[%d] has no kind or no name", one.Name, i)
		}
	}
	said.Touches, said.Known = slices.Clip(said.Touches), true
	return said, nil
}
