package flowtest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// place is a task of a step, its undo or its probe.
type place struct {
	step string
	item int
	kind string // "", undo or probe
}

func (p place) String() string {
	text := "step " + p.step
	if p.item > 0 {
		text += " item " + strconv.Itoa(p.item)
	}
	if p.kind != "" {
		text = "the " + p.kind + " of " + text
	}
	return text
}

// ended is how one attempt ended, and how long it took.
type ended struct {
	took   time.Duration
	result flow.Result
}

// order is what a person did, and when.
type order struct {
	at   time.Time
	verb string
	with flow.Intervention
	id   string // of a signal
}

// signal is the verb of an order that is none: Step is the signal's name, Output its payload.
const signal = "signal"

// recording is what an execution's history tells of the world outside: how attempts ended, and what people did.
type recording struct {
	execution flow.ExportedExecution
	results   map[place][]ended
	orders    []order
	roles     []string // that any step asks for: who answered had one of them

	begun map[place]time.Time
}

func newRecording(e flow.ExportedExecution, roles []string) *recording {
	r := &recording{execution: e, results: map[place][]ended{}, begun: map[place]time.Time{}, roles: roles}
	for i := range e.Events {
		r.event(e.Events, i)
	}
	return r
}

func (r *recording) event(events []flow.Event, i int) {
	e := &events[i]
	at := place{e.Step, e.Item, ""}
	probe, undo := place{e.Step, e.Item, "probe"}, place{e.Step, e.Item, "undo"}
	switch e.Kind {
	case flow.EventAttemptStarted:
		if _, open := r.begun[at]; !open {
			r.begun[at] = e.At // else a crash cut the last one off, and this one is taken for it
		}
	case flow.EventProbeStarted:
		r.begun[probe] = e.At
	case flow.EventUndoStarted:
		if _, open := r.begun[undo]; !open {
			r.begun[undo] = e.At
		}
	case flow.EventAttemptDone:
		if _, probing := r.begun[probe]; probing {
			r.end(probe, e, flow.Result{Output: answer(true, e.Output)})
		} else {
			r.end(at, e, flow.Result{Output: e.Output})
		}
	case flow.EventAttemptFailed, flow.EventAttemptHeld:
		result := flow.Result{Error: e.Error}
		if _, probing := r.begun[probe]; probing {
			if e.Error != nil && e.Error.Code == flow.CodeUnprobed {
				result = flow.Result{Output: answer(false, nil)}
			}
			at = probe
		}
		r.end(at, e, result)
	case flow.EventAttemptDoubt:
		if !againAfter(events[i+1:], e) {
			r.end(at, e, flow.Result{Error: e.Error})
		}
	case flow.EventProbeFailed:
		r.end(probe, e, flow.Result{Error: e.Error})
	case flow.EventUndoDone:
		r.end(undo, e, flow.Result{Output: json.RawMessage("{}")})
	case flow.EventUndoFailed, flow.EventUndoHeld, flow.EventUndoSkipped:
		r.end(undo, e, flow.Result{Error: e.Error})
	}
	r.person(events, i)
}

// end notes the end of an attempt, if one runs: an event may also tell that a retry was given up.
func (r *recording) end(at place, e *flow.Event, result flow.Result) {
	from, open := r.begun[at]
	if !open {
		return
	}
	delete(r.begun, at)
	result.Logs = e.Logs
	r.results[at] = append(r.results[at], ended{e.At.Sub(from), result})
}

// answer is what a probe says.
func answer(done bool, output json.RawMessage) json.RawMessage {
	text := `{"done":` + strconv.FormatBool(done)
	if len(output) > 0 {
		text += `,"output":` + string(output)
	}
	return json.RawMessage(text + "}")
}

// againAfter reports whether a doubt is that of a crash after which the attempt was made again at once.
func againAfter(rest []flow.Event, doubt *flow.Event) bool {
	for i := range rest {
		if e := &rest[i]; e.Step == doubt.Step && e.Item == doubt.Item {
			return e.Kind == flow.EventAttemptStarted && e.Again && e.Actor == ""
		}
	}
	return false
}

// person notes what a person did that the event tells of.
func (r *recording) person(events []flow.Event, i int) {
	e := &events[i]
	if e.Actor == "" && e.Kind != flow.EventSignalled || e.Actor == "engine" || e.Actor == "flow" || e.Kind == flow.EventStarted {
		return
	}
	with := flow.Intervention{Step: e.Step, Item: e.Item, Actor: e.Actor, Reason: e.Reason}
	verb := ""
	switch e.Kind {
	case flow.EventPaused:
		verb = flow.OrderPause
	case flow.EventResumed:
		verb = flow.OrderResume
	case flow.EventCompensating:
		if e.Target == flow.Cancelled {
			verb = flow.OrderCancel
		}
	case flow.EventReturning:
		if !together(events[:i], e, flow.EventStepChosen) {
			verb = flow.OrderBack
		}
	case flow.EventMigrated:
		verb, with.Version = flow.OrderMigrate, e.Version
	case flow.EventStepChosen:
		verb, with.Case = flow.OrderChoose, e.Case
	case flow.EventStepRetried:
		if !together(events[:i], e, flow.EventStepChosen) {
			verb = flow.OrderRetry
		}
	case flow.EventStepSkipping:
		verb, with.Output = flow.OrderSkip, e.Output
	case flow.EventAttemptStarted:
		verb, with.Input = flow.OrderRetryStep, e.Input
	case flow.EventUndoStarted:
		verb = flow.OrderRetry
	case flow.EventAttemptStopping, flow.EventAttemptFailed:
		if !together(events[:i], e, flow.EventStepSkipping) {
			verb = flow.OrderFail
		}
	case flow.EventSignalled:
		verb, with.Step, with.Output = signal, e.Signal, e.Output
	case flow.EventApproved:
		verb, with.Roles = flow.OrderApprove, r.roles
	case flow.EventRefused:
		verb, with.Roles = flow.OrderRefuse, r.roles
	case flow.EventSettled:
		verb = flow.OrderSettle
		if i+1 < len(events) {
			next := &events[i+1]
			with.Done = next.Kind == flow.EventAttemptDone || next.Kind == flow.EventUndoDone
			with.Output = next.Output
		}
	}
	if verb == "" || verb == flow.OrderRetry && len(r.orders) > 0 && r.orders[len(r.orders)-1].verb == verb && r.orders[len(r.orders)-1].at.Equal(e.At) {
		return // one retry is for all that is held
	}
	r.orders = append(r.orders, order{e.At, verb, with, e.ID})
}

// together reports whether an event comes with another of a kind, of the same step: one order makes both.
func together(before []flow.Event, e *flow.Event, kind flow.EventKind) bool {
	for i := len(before) - 1; i >= 0 && before[i].At.Equal(e.At); i-- {
		if before[i].Kind == kind && before[i].Step == e.Step {
			return true
		}
	}
	return false
}
