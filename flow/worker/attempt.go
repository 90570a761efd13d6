package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
)

// take runs an attempt, unless it is known: then it says how it ended, or lets it go on.
func (w *Worker) take(root context.Context, r *flowpb.Run) {
	call := flow.Call{
		ID: r.GetId(), Execution: r.GetExecution(), Flow: r.GetFlow(), Step: r.GetStep(), Item: int(r.GetItem()), Attempt: int(r.GetAttempt()),
		Key: r.GetKey(), Device: w.config.Device, Tool: r.GetTool(), Undo: r.GetUndo(), Probe: r.GetProbe(), Input: r.GetInput(),
		Timeout: time.Duration(r.GetTimeoutMs()) * time.Millisecond, Plan: r.GetPlan(), Heartbeat: time.Duration(r.GetHeartbeatMs()) * time.Millisecond,
	}
	w.mu.Lock()
	if known := w.attempts[call.ID]; known != nil {
		ended := known.Result
		w.mu.Unlock()
		if ended != nil {
			w.tell(call.ID, ended)
		}
		return
	}
	var before []*attempt
	for _, other := range w.attempts {
		if other.Call.Key == call.Key && other.Result == nil {
			before = append(before, other)
		}
	}
	ctx, cancel := context.WithCancel(root)
	a := &attempt{entry: entry{Call: call, At: time.Now()}, cancel: cancel, done: make(chan struct{})}
	// From here on the attempt counts as begun: were it not on disk, a restart could run it again. What cannot be written does not begin.
	err := w.journal.put(a.entry)
	w.wrote(err)
	if err != nil {
		w.mu.Unlock()
		cancel()
		w.tell(call.ID, &flow.Result{Error: &flow.Error{Code: CodeDisk, Message: fmt.Sprintf("it was not begun, since its beginning cannot be written down: %v", err)}})
		return
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
}

// run runs an attempt and keeps its result.
func (w *Worker) run(ctx context.Context, a *attempt) {
	call := a.Call
	call.Log = func(data []byte) { w.forward(call.ID, data) }
	result := w.config.Tools.Run(ctx, call, w.config.Env)
	w.mu.Lock()
	a.entry = entry{Call: a.Call, At: time.Now(), Result: &result}
	err := w.journal.put(a.entry)
	w.wrote(err)
	// Until it can be written, it is kept in memory. Should this process end before, the attempt is in doubt, as its beginning is written.
	a.unsaved = err != nil
	close(a.done)
	w.mu.Unlock()
	w.tell(call.ID, &result)
}

// save writes results that could not be written when they came.
func (w *Worker) save() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.attempts {
		if !a.unsaved {
			continue
		}
		err := w.journal.put(a.entry)
		w.wrote(err)
		if err != nil {
			return
		}
		a.unsaved = false
	}
}

// wrote logs when the disk begins to fail, and when it works again. The caller holds the mutex.
func (w *Worker) wrote(err error) {
	if failing := err != nil; failing != w.failing {
		w.failing = failing
		if failing {
			w.log.Error("attempts cannot be written down: none begins until they can", "dir", w.journal.dir, "error", err)
		} else {
			w.log.Info("attempts can be written down again", "dir", w.journal.dir)
		}
	}
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
func (w *Worker) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.attempts[id]
	if a == nil {
		return
	}
	if a.Result == nil { // not wanted any more, and still running: its result will be dropped after Keep
		a.cancel()
		return
	}
	for _, other := range w.attempts {
		// Earlier attempts with the same key were given up: nobody asks for them any more.
		if other.Call.Key != a.Call.Key || other.Result == nil {
			continue
		}
		if err := w.journal.remove(other.Call.ID); err != nil { // told again on the next stream, and dropped after Keep
			w.log.Warn("a result that the server has cannot be removed", "attempt", other.Call.ID, "error", err)
			continue
		}
		delete(w.attempts, other.Call.ID)
	}
}
