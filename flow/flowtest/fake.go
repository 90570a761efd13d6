package flowtest

import (
	"context"
	"encoding/json"
	"sync"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Outcome is how a fake answers one call.
type Outcome func(context.Context, flow.Call) flow.Result

// Returns is an output, a JSON object.
func Returns(output string) Outcome {
	return func(context.Context, flow.Call) flow.Result { return flow.Result{Output: json.RawMessage(output)} }
}

// Fails is an error after which another attempt may be made.
func Fails(code, message string) Outcome {
	return func(context.Context, flow.Call) flow.Result {
		return flow.Result{Error: &flow.Error{Code: code, Message: message}}
	}
}

// FailsForGood is an error that another attempt would meet again.
func FailsForGood(code, message string) Outcome {
	return func(context.Context, flow.Call) flow.Result {
		return flow.Result{Error: &flow.Error{Code: code, Message: message, Permanent: true}}
	}
}

// Vanishes is an end of which nobody knows whether the tool had its effect.
func Vanishes() Outcome {
	return func(context.Context, flow.Call) flow.Result {
		return flow.Result{Error: &flow.Error{Code: flow.CodeLost, Message: "it vanished", Unknown: true}}
	}
}

// After is another outcome after so much virtual time; sooner if the attempt is stopped.
func After(d time.Duration, then Outcome) Outcome {
	return func(ctx context.Context, call flow.Call) flow.Result {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return then(ctx, call)
		case <-ctx.Done():
			return flow.Result{Error: &flow.Error{Code: flow.CodeCancelled, Message: "it was stopped", Unknown: true}}
		}
	}
}

// Fake is a tool that answers as it was told and notes its calls.
type Fake struct {
	mu       sync.Mutex // guards what follows
	outcomes []Outcome
	calls    []flow.Call
}

// Fake registers a tool that answers its first call with the first outcome, and so on; the last goes on for ever. Default: {}. Its inputs and
// outputs are checked as any tool's.
func (w *World) Fake(m flow.Manifest, outcomes ...Outcome) *Fake {
	if len(outcomes) == 0 {
		outcomes = []Outcome{Returns("{}")}
	}
	f := &Fake{outcomes: outcomes}
	w.Tools.Handle(m, f.run)
	return f
}

func (f *Fake) run(ctx context.Context, call flow.Call) flow.Result {
	f.mu.Lock()
	outcome := f.outcomes[min(len(f.calls), len(f.outcomes)-1)]
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	return outcome(ctx, call)
}

// Calls are the calls so far, in order.
func (f *Fake) Calls() []flow.Call {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]flow.Call(nil), f.calls...)
}
