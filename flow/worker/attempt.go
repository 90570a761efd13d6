package worker

import (
	"context"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
)

// take runs an attempt, unless it is known: then it says how it ended, or lets it go on.
func (w *Worker) take(root context.Context, r *flowpb.Run) error {
	call := flow.Call{
		ID: r.GetId(), Execution: r.GetExecution(), Flow: r.GetFlow(), Step: r.GetStep(), Item: int(r.GetItem()), Attempt: int(r.GetAttempt()),
		Key: r.GetKey(), Device: w.config.Device, Tool: r.GetTool(), Undo: r.GetUndo(), Probe: r.GetProbe(), Input: r.GetInput(),
		Timeout: time.Duration(r.GetTimeoutMs()) * time.Millisecond,
	}
	w.mu.Lock()
	if known := w.attempts[call.ID]; known != nil {
		ended := known.Result
		w.mu.Unlock()
		if ended != nil {
			w.tell(call.ID, ended)
		}
		return nil
	}
	var before []*attempt
	for _, other := range w.attempts {
		if other.Call.Key == call.Key && other.Result == nil {
			before = append(before, other)
		}
	}
	ctx, cancel := context.WithCancel(root)
	a := &attempt{entry: entry{Call: call, At: time.Now()}, cancel: cancel, done: make(chan struct{})}
	// From here on the attempt counts as begun: were it not on disk, a restart could run it again.
	if err := w.journal.put(a.entry); err != nil {
		w.mu.Unlock()
		cancel()
		return err
	}
	w.attempts[call.ID] = a
	w.mu.Unlock()
	w.tasks.Go(func() {
		defer cancel()
		for _, other := range before {
			// The server has given that attempt up. Two with the same key must not run side by side.
			other.cancel()
			<-other.done
		}
		w.run(ctx, a)
	})
	return nil
}

// run runs an attempt and keeps its result.
func (w *Worker) run(ctx context.Context, a *attempt) {
	call := a.Call
	call.Log = func(data []byte) { w.forward(call.ID, data) }
	result := w.config.Tools.Run(ctx, call, w.config.Env)
	w.mu.Lock()
	ended := entry{Call: a.Call, At: time.Now(), Result: &result}
	err := w.journal.put(ended)
	if err == nil {
		a.entry = ended
	}
	close(a.done)
	w.mu.Unlock()
	if err != nil {
		w.fail(err)
		return
	}
	w.tell(call.ID, &result)
}

// end stops an attempt. One that is not known here never ran.
func (w *Worker) end(id string) {
	w.mu.Lock()
	a := w.attempts[id]
	var ended *flow.Result
	if a != nil {
		ended = a.Result
	}
	w.mu.Unlock()
	switch {
	case a == nil:
		w.tell(id, &flow.Result{Error: &flow.Error{Code: flow.CodeCancelled, Message: "it was stopped before it began"}})
	case ended != nil:
		w.tell(id, ended)
	default:
		a.cancel()
	}
}

// forget drops a result that is acknowledged.
func (w *Worker) forget(id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.attempts[id]
	if a == nil {
		return nil
	}
	if a.Result == nil { // not wanted any more, and still running: its result will be dropped after Keep
		a.cancel()
		return nil
	}
	for _, other := range w.attempts {
		// Earlier attempts with the same key were given up: nobody asks for them any more.
		if other.Call.Key != a.Call.Key || other.Result == nil {
			continue
		}
		if err := w.journal.remove(other.Call.ID); err != nil {
			return err
		}
		delete(w.attempts, other.Call.ID)
	}
	return nil
}
