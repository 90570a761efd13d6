package flow

import (
	"context"
	"errors"
	"time"
)

// flight is an attempt that is about to run, or runs. The engine, and the run, wait for it.
type flight struct {
	run    *run
	ctx    context.Context
	stop   context.CancelCauseFunc
	action action
	said   saying
}

// start makes an attempt ready. The first that a driver starts it may go on with itself; the others get goroutines of their own.
func (r *run) start(a *action) {
	e := r.engine
	base := e.root
	if a.remote || a.flow {
		base = e.away
	}
	f := &flight{run: r, action: *a}
	f.ctx, f.stop = context.WithCancelCause(base)
	r.mu.Lock()
	if r.hold || r.closed != nil { // the engine began to stop meanwhile, or was fenced; the next one takes the attempt up
		r.mu.Unlock()
		f.stop(nil)
		e.gate.unused(a.grant)
		return
	}
	r.stops[a.call.ID] = f.stop
	e.attempts.Add(1) // before quiesce can have returned
	r.flying.Add(1)
	r.mu.Unlock()
	if r.next == nil {
		r.next = f
		return
	}
	f.launch()
}

// launch has what the driver would go on with run beside it.
func (r *run) launch() {
	r.next.launch()
	r.next = nil
}

// launch runs the attempt in a goroutine of its own, for which the engine waits; nil is none.
func (f *flight) launch() {
	if f != nil {
		go f.fly()
	}
}

// fly runs the attempt, and then what comes of it: of steps that follow one another none has to wait for a goroutine, whose stack would have to grow
// all over again.
func (f *flight) fly() {
	for f != nil {
		f = f.land()
	}
}

// land runs the attempt to its end, hands its result in and returns the attempt to go on with.
func (f *flight) land() (next *flight) {
	r, a, e := f.run, &f.action, f.run.engine
	defer e.attempts.Done()
	defer r.flying.Done()
	result, ran := f.admitted(f.ctx)
	detached := errors.Is(context.Cause(f.ctx), ErrClosed) || !ran
	f.stop(nil)
	r.mu.Lock()
	delete(r.stops, a.call.ID)
	r.mu.Unlock()
	if detached {
		return nil // in doubt, or running on: for the next engine to find out
	}
	msg := message{in: input{kind: inEnded, step: a.call.Step, item: a.call.Item, attempt: a.call.Attempt, undo: a.call.Undo, probe: a.call.Probe, result: result}}
	if a.remote && e.config.Remote != nil {
		msg.ack = &a.call
	}
	if r.hand(&msg) {
		return r.drive()
	}
	return nil
}

// admitted runs an attempt with leave of the gate: the one that the machine got for it, or, for an undo or a probe, one that is waited for
// here. It reports false if the engine stopped before the attempt began.
func (f *flight) admitted(ctx context.Context) (Result, bool) {
	r, a, e := f.run, &f.action, f.run.engine
	q := request{
		step: a.call.Step, item: a.call.Item, tool: a.call.Tool, device: a.call.Device,
		local: !a.remote && !a.flow, nested: a.flow, exclusive: a.lock, urgent: a.call.Undo || a.call.Probe,
	}
	grant := a.grant
	switch {
	case q.urgent:
		var err error
		if grant, err = e.gate.wait(ctx, r, q); errors.Is(err, ErrClosed) {
			return Result{}, false
		} else if err != nil {
			return Result{Error: &Error{Code: CodeCancelled, Message: a.call.Tool + " was stopped before it began"}}, true
		}
	case a.attach:
		grant = e.gate.seize(r, q)
	}
	result := f.attempt(ctx)
	if q.urgent {
		e.gate.unused(grant)
	} else {
		e.gate.release(grant)
	}
	return result, true
}

// attempt runs one attempt to its end, wherever it runs.
func (f *flight) attempt(ctx context.Context) Result {
	r, a, e := f.run, &f.action, f.run.engine
	call := &a.call
	started := time.Now()
	log := e.attemptLog(a, started)
	f.said = saying{run: r, call: call, secrets: a.secrets}
	defer f.said.close()
	if log != nil {
		f.said.next = log.write
	}
	call.Log = f.said.write
	var result Result
	switch {
	case a.flow && call.Undo:
		result = e.undoSubflow(ctx, *call)
	case a.flow:
		if result.Error = e.exposed(ctx, a); result.Error == nil {
			result = e.subflow(ctx, r, *call)
		}
	case a.remote && e.config.Remote == nil:
		result = Result{Error: failure(CodeTool, "%s runs on device %s, and the engine has no Config.Remote", call.Tool, call.Device)}
	case a.remote:
		result = e.config.Remote.Run(ctx, *call)
	default:
		result = e.config.Tools.Run(ctx, *call, e.config.Env)
	}
	log.close(result.Logs)
	e.metrics.attempt(result, time.Since(started))
	return result
}
