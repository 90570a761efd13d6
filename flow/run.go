package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// run is an execution that is live in this engine. Whoever brings it something to do while nobody works on it drives it until its inbox is empty: at most one
// goroutine at a time touches the program and the state.
type run struct {
	engine *Engine
	id     string
	owner  int64 // the member for which it runs; 0 without a Shared store
	// Of the gate, written once, under its mutex, before the first attempt.
	root     string // the execution in whose name it locks
	module   string
	exempt   string // from freezes; why
	priority int8
	as       []string // who started it, as was proved

	p    *program   // of the driver
	x    *Execution // of the driver
	next *flight    // of the driver: what it has started and goes on with itself, if it can

	mu     sync.Mutex // guards what follows
	inbox  []message
	busy   bool
	closed error // set when the run is no longer live
	hold   bool
	stops  map[string]context.CancelCauseFunc // attempts in flight, by ID
	timers map[*time.Timer]struct{}           // that have not fired
	looked int64                              // the execution's Seq when layDown last looked

	flying  sync.WaitGroup          // attempts in flight
	tickets map[*ticket]struct{}    // that wait; guarded by gate.mu
	asked   map[*keyTicket]struct{} // the flow's locks, waiting; guarded by gate.mu
}

// message is an input with somebody who may wait for its fate.
type message struct {
	in     input
	ack    *Call      // a remote attempt whose result the input carries
	fate   chan error // may be nil
	letter int64      // that asked for it; 0 is none

	refused error // what its fate is, once the rest is durable
}

// errStopped is the cause with which an attempt is stopped because its execution was cancelled.
var errStopped = errors.New("flow: the execution was cancelled")

// post hands an input in, and drives the execution if nobody does.
func (r *run) post(msg message) {
	if r.hand(&msg) {
		r.drive().launch()
	}
}

// hand hands an input in, and reports whether the caller has to drive.
func (r *run) hand(msg *message) bool {
	r.mu.Lock()
	if r.closed != nil {
		r.mu.Unlock()
		r.engine.gate.unused(msg.in.grant)
		if msg.fate != nil {
			msg.fate <- r.closed
		}
		return false
	}
	defer r.mu.Unlock()
	r.inbox = append(r.inbox, *msg)
	drives := !r.busy
	r.busy = true
	return drives
}

// first puts a message before those that have come in since the run was reserved. The caller has set busy.
func (r *run) first(msg message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inbox = append([]message{msg}, r.inbox...)
}

// driveBeside drives in a goroutine of its own, for which the engine, and the run, wait. The caller has set busy, and an attempt of the run has not ended.
func (r *run) driveBeside() {
	r.engine.attempts.Add(1)
	r.flying.Add(1)
	go func() {
		defer r.engine.attempts.Done()
		defer r.flying.Done()
		r.drive().launch()
	}()
}

// drive works the inbox off, and returns an attempt that is to begin, or nil: the caller runs it or launches it. The caller has set busy.
func (r *run) drive() (next *flight) {
	room := r.engine.rooms.get()
	defer r.engine.rooms.put(room)
	for {
		r.mu.Lock()
		batch, hold := r.inbox, r.hold
		if len(batch) == 0 {
			r.busy = false
			next, r.next = r.next, nil
			r.mu.Unlock()
			return next
		}
		r.inbox = room.read
		r.mu.Unlock()
		r.launch() // it does not wait for what comes now
		m := &machine{p: r.p, x: r.x, now: now(), hold: hold, events: room.events, actions: room.actions, gate: r}
		prev := r.x.Seq
		for i := range batch {
			if m.refused = r.engine.resolve(r.engine.root, r.x.Flow, &batch[i].in); m.refused == nil {
				m.step(batch[i].in)
			}
			batch[i].refused = m.refused
			if batch[i].letter != 0 {
				m.answers = append(m.answers, Answer{batch[i].letter, answerText(m.refused)})
			}
		}
		err := r.settle(m, prev, batch)
		if errors.Is(err, ErrLocked) {
			err = r.again(batch)
		}
		room.read, room.events, room.actions = emptied(batch), emptied(m.events), emptied(m.actions)
		if err != nil {
			return nil
		}
		r.p = m.p
		if r.x.State.Ended() {
			r.launch()
			r.engine.forget(r)
			return nil
		}
	}
}

// again has the driver work on a batch once more, from what is stored: an execution of another engine holds a lock that it would have taken.
func (r *run) again(batch []message) error {
	x, err := r.engine.load(r.engine.root, r.id)
	if err != nil {
		for _, msg := range batch {
			if msg.fate != nil {
				msg.fate <- err
			}
		}
		r.engine.log.Error("execution dropped", "execution", r.id, "error", err)
		r.engine.forget(r)
		return err
	}
	r.bind(r.p, x)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		batch[i].in.grant = nil // it was given back
	}
	r.inbox = append(slices.Clone(batch), r.inbox...)
	return nil
}

// bind gives the run its program and its state. The caller drives it.
func (r *run) bind(p *program, x *Execution) {
	r.p, r.x = p, x
	x.owner = r.owner
	r.engine.gate.introduce(r, p, x)
	r.engine.inherit(p, x)
	for i := range x.Steps {
		for j := range x.Steps[i].Tasks {
			if t := &x.Steps[i].Tasks[j]; t.locked {
				r.engine.gate.seizeKey(taskName(x.ID, x.Steps[i].Name, j), exclusivePrefix+t.Lock, t.Started)
			}
		}
	}
}

// settle makes what the machine did durable, then has it done.
func (r *run) settle(m *machine, prev int64, batch []message) error {
	if len(m.events) > 0 {
		if err := r.engine.commit(m, prev); err != nil {
			for i := range m.actions {
				r.engine.gate.unused(m.actions[i].grant)
			}
			if errors.Is(err, ErrLocked) {
				return err
			}
			for _, msg := range batch {
				if msg.fate != nil {
					msg.fate <- err
				}
			}
			// What is in memory is ahead of what is stored: drop it.
			r.engine.log.Error("execution dropped", "execution", r.id, "flow", r.x.Flow, "error", err)
			r.engine.forget(r)
			return err
		}
	}
	for i := range m.actions {
		r.perform(&m.actions[i], m.hold)
	}
	for _, msg := range batch {
		if msg.ack != nil {
			r.engine.config.Remote.Acknowledge(*msg.ack)
		}
		if msg.fate != nil {
			msg.fate <- msg.refused
		}
	}
	return nil
}

// perform does one action. An engine that stops starts nothing.
func (r *run) perform(a *action, hold bool) {
	switch a.kind {
	case actRun:
		if !hold {
			a.secrets = r.x.secrets()
			r.start(a)
		}
	case actUnused:
		r.engine.gate.unused(a.grant)
	case actStop:
		r.mu.Lock()
		stop := r.stops[a.call.ID]
		r.mu.Unlock()
		if stop != nil {
			stop(errStopped)
		}
	case actTimer:
		due := input{kind: inDue, step: a.call.Step, item: a.call.Item, undo: a.call.Undo, at: a.at}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed == nil && !hold {
			var timer *time.Timer
			timer = time.AfterFunc(a.at.Sub(now()), func() {
				r.mu.Lock() // behind the assignment, and the entry below
				delete(r.timers, timer)
				r.mu.Unlock()
				r.post(message{in: due})
			})
			if r.timers == nil {
				r.timers = map[*time.Timer]struct{}{}
			}
			r.timers[timer] = struct{}{}
		}
	}
}

// quiesce keeps the run from starting anything more.
func (r *run) quiesce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = true
	for timer := range r.timers {
		timer.Stop()
	}
}

// close ends the run: what is in its inbox gets err.
func (r *run) close(err error) {
	r.mu.Lock()
	r.closed = err
	inbox := r.inbox
	r.inbox = nil
	for timer := range r.timers {
		timer.Stop()
	}
	r.mu.Unlock()
	r.engine.gate.forget(r)
	for _, msg := range inbox {
		r.engine.gate.unused(msg.in.grant)
		if msg.fate != nil {
			msg.fate <- err
		}
	}
}

// subflow runs another flow and waits for its end. Its key holds the attempt, so that handing the attempt over again
// finds the same execution, and another attempt starts another one.
func (e *Engine) subflow(ctx context.Context, r *run, call Call) Result {
	params, err := decodeParams(call.Input)
	if err != nil {
		return Result{Error: failure(CodeInput, "%v", err)}
	}
	name, version, err := parseCall(call.Tool)
	if err != nil {
		return Result{Error: failure(CodeInput, "%v", err)}
	}
	id, err := e.Start(context.WithoutCancel(ctx), name, params, atVersion(version), Key(fmt.Sprintf("%s/%d", call.Key, call.Attempt)), By("flow"), called(r))
	if err != nil {
		return Result{Error: &Error{Code: CodeSubflow, Message: err.Error(), Permanent: errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotFound)}}
	}
	deadline, cancel := context.WithTimeout(ctx, call.Timeout)
	defer cancel()
	x, err := e.Wait(deadline, id)
	if err != nil && !errors.Is(context.Cause(ctx), ErrClosed) {
		reason := "the calling execution was cancelled"
		if ctx.Err() == nil {
			reason = fmt.Sprintf("it did not end within %s", call.Timeout)
		}
		if err = e.Cancel(e.away, id, Intervention{Actor: "flow", Reason: reason}); err == nil {
			x, err = e.Wait(e.away, id)
		}
	}
	switch {
	case err != nil:
		return Result{Error: &Error{Code: CodeLost, Message: err.Error(), Unknown: true}}
	case x.State != Done:
		why := x.Error.Error()
		if x.State == Cancelled && x.Error.Code == CodeCancelled {
			why = x.Error.Message
		}
		return Result{Error: &Error{Code: CodeSubflow, Message: fmt.Sprintf("execution %s of %s is %s: %s", id, x.Flow, x.State, why)}}
	}
	whole, err := e.load(e.away, id) // with what is struck out elsewhere
	switch {
	case err != nil:
		return Result{Error: &Error{Code: CodeLost, Message: err.Error(), Unknown: true}}
	case len(whole.Output) > 0:
		return Result{Output: whole.Output, hidden: within(whole.Output, whole.secrets())}
	}
	return Result{Output: mustJSON(map[string]any{"execution": id})}
}

// undoSubflow compensates every execution that a sub-flow step has started.
func (e *Engine) undoSubflow(ctx context.Context, call Call) Result {
	rows, err := e.config.Store.List(ctx, Filter{Parent: call.Execution})
	for _, row := range rows {
		if len(row.Key) <= len(call.Key) || row.Key[:len(call.Key)+1] != call.Key+"/" {
			continue
		}
		if err == nil {
			err = e.turnBack(ctx, row.ID, input{kind: inCancel, actor: "flow", reason: "the calling execution is undone", done: true})
		}
		if err == nil {
			_, err = e.Wait(ctx, row.ID)
		}
	}
	if err != nil {
		return Result{Error: &Error{Code: CodeSubflow, Message: err.Error()}}
	}
	return Result{Output: []byte("{}")}
}
