package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// EventKind names what happened.
type EventKind string

const (
	EventStarted      EventKind = "execution.started"
	EventCompensating EventKind = "execution.compensating" // Target says how it will end, Error or Actor why
	EventStuck        EventKind = "execution.stuck"        // waits for a person; Reason says what for
	EventPaused       EventKind = "execution.paused"
	EventResumed      EventKind = "execution.resumed"
	EventSignalled    EventKind = "execution.signalled" // Signal came, with Output
	EventRetried      EventKind = "execution.retried"   // a person had what is held tried again
	EventMigrated     EventKind = "execution.migrated"  // to Version, with Params
	EventSettled      EventKind = "execution.settled"   // a person said how a held task ended
	EventReturning    EventKind = "execution.returning" // a person takes it back to Step
	EventReturned     EventKind = "execution.returned"  // everything since Step is undone
	EventLockWaiting  EventKind = "execution.awaits"    // its flow's locks; Text says who has one
	EventLocked       EventKind = "execution.locked"    // it has its flow's locks, Keys
	EventDone         EventKind = "execution.done"
	EventFailed       EventKind = "execution.failed"
	EventCancelled    EventKind = "execution.cancelled"

	EventStepSkipping  EventKind = "step.skipping"  // by a person; what runs of it is stopped
	EventStepEntered   EventKind = "step.entered"   // the steps that it holds begin; Case says which, if not all
	EventStepHandling  EventKind = "step.handling"  // it has failed with Error, and its handler begins
	EventStepParked    EventKind = "step.parked"    // waits for what Text says, until RetryAt
	EventApproved      EventKind = "step.approved"  // by Actor
	EventRefused       EventKind = "step.refused"   // by Actor
	EventStepChosen    EventKind = "step.chosen"    // by a person: Case is the way that it goes
	EventStepHeld      EventKind = "step.held"      // it cannot begin, and waits for a person
	EventStepRetried   EventKind = "step.retried"   // it begins again
	EventStepRepeating EventKind = "step.repeating" // its next iteration, Item, begins, at RetryAt if that is set
	EventStepFanned    EventKind = "step.fanned"    // into Items tasks
	EventStepDone      EventKind = "step.done"
	EventStepSkipped   EventKind = "step.skipped"
	EventStepFailed    EventKind = "step.failed"
	EventNoticed       EventKind = "step.noticed"

	EventAttemptQueued   EventKind = "attempt.queued" // Text says what for; it starts later
	EventAttemptStarted  EventKind = "attempt.started"
	EventAttemptWaits    EventKind = "attempt.waits" // its tool says that it waits, for Text; no longer, if that is empty
	EventAttemptDone     EventKind = "attempt.done"
	EventAttemptFailed   EventKind = "attempt.failed"   // with RetryAt: to be tried again
	EventAttemptDoubt    EventKind = "attempt.doubt"    // whether it had its effect is not known
	EventAttemptStopping EventKind = "attempt.stopping" // a person gave it up; Error says so
	EventAttemptHeld     EventKind = "attempt.held"     // until a person decides
	EventProbeStarted    EventKind = "probe.started"
	EventProbeFailed     EventKind = "probe.failed" // asked again at RetryAt

	EventUndoStarted EventKind = "undo.started"
	EventUndoDone    EventKind = "undo.done"
	EventUndoFailed  EventKind = "undo.failed" // with RetryAt: to be tried again
	EventUndoHeld    EventKind = "undo.held"
	EventUndoSkipped EventKind = "undo.skipped"
)

// Event is one entry of an execution's history. The history is the truth: an execution's state is what its events say,
// folded in order, and nothing else.
type Event struct {
	Execution string          `json:"execution,omitempty"`
	Seq       int64           `json:"seq,omitempty"` // 1, 2, ... without gaps
	At        time.Time       `json:"at,omitzero"`
	Kind      EventKind       `json:"kind"`
	Step      string          `json:"step,omitempty"`
	Item      int             `json:"item,omitempty"`
	Items     int             `json:"items,omitempty"`
	Signal    string          `json:"signal,omitempty"` // its name; of attempt.done: the step takes the oldest of that name
	ID        string          `json:"id,omitempty"`     // the signal's
	Case      string          `json:"case,omitempty"`
	Attempt   int             `json:"attempt,omitempty"`
	Again     bool            `json:"again,omitempty"` // the attempt does not count: the last one was cut off by a crash, or a person asked
	Device    string          `json:"device,omitempty"`
	Tool      string          `json:"tool,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     *Error          `json:"error,omitempty"`
	Logs      string          `json:"logs,omitempty"`
	Ran       Ran             `json:"ran,omitzero"` // what an attempt, a probe or an undo was run by
	RetryAt   time.Time       `json:"retry_at,omitzero"`
	Target    State           `json:"target,omitempty"`
	Actor     string          `json:"actor,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Text      string          `json:"text,omitempty"`
	Severity  string          `json:"severity,omitempty"`
	Lock      string          `json:"lock,omitempty"`   // the task's exclusive key
	Keys      []string        `json:"keys,omitempty"`   // locks taken, or freed by the end
	Hidden    []string        `json:"hidden,omitempty"` // secrets of a sub-flow, in what it was given or has returned; they are struck out of all that is shown

	// Of execution.started only.
	Flow    string         `json:"flow,omitempty"`
	Version int            `json:"version,omitempty"`
	Key     string         `json:"key,omitempty"`
	Parent  string         `json:"parent,omitempty"`
	Params  map[string]any `json:"params,omitempty"`
	Root    string         `json:"root,omitempty"`   // of a sub-flow: the execution that was started first
	Exempt  string         `json:"exempt,omitempty"` // from freezes; why
	As      []string       `json:"as,omitempty"`     // who started it, as was proved
}

// String writes the event as one line, without its data.
func (e Event) String() string {
	var b bytes.Buffer
	b.WriteString(string(e.Kind))
	if e.Step != "" {
		b.WriteString(" " + e.Step)
	}
	if e.Item > 0 {
		fmt.Fprintf(&b, "[%d]", e.Item)
	}
	for _, part := range []struct {
		name string
		set  bool
		text string
	}{
		{"version", e.Kind == EventMigrated, strconv.Itoa(e.Version)},
		{"attempt", e.Attempt > 0, strconv.Itoa(e.Attempt)},
		{"again", e.Again, "true"},
		{"items", e.Items > 0, strconv.Itoa(e.Items)},
		{"case", e.Case != "", strconv.Quote(e.Case)},
		{"signal", e.Signal != "", strconv.Quote(e.Signal)},
		{"id", e.ID != "", strconv.Quote(e.ID)},
		{"device", e.Device != "", e.Device},
		{"target", e.Target != "", string(e.Target)},
		{"actor", e.Actor != "", e.Actor},
		{"reason", e.Reason != "", strconv.Quote(e.Reason)},
		{"text", e.Text != "", strconv.Quote(e.Text)},
	} {
		if part.set {
			b.WriteString(" " + part.name + "=" + part.text)
		}
	}
	if e.Error != nil {
		fmt.Fprintf(&b, " error=%q", e.Error.Error())
	}
	return b.String()
}

// DecodeEvents reads the events of one record of a history.
func DecodeEvents(execution string, r Record) ([]Event, error) {
	var events []Event
	if err := json.Unmarshal(r.Body, &events); err != nil {
		return nil, fmt.Errorf("flow: history of %s at %d: %w", execution, r.Seq, err)
	}
	for i := range events {
		events[i].Execution, events[i].Seq, events[i].At = execution, r.Seq+int64(i), r.At
	}
	return events, nil
}
