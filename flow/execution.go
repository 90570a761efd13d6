package flow

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// State is where an execution stands.
//
//	           every step done
//	running ----------------------> done
//	 |   ^  \ a step failed, or cancel
//	 |   |   `-----> compensating ------> failed, cancelled
//	 |   |                |   ^   every undo done
//	 v   |                v   |
//	stuck (retry, settle) stuck
//
// Compensating ends as running again if a person took the execution back to a step: Target says so.
type State string

const (
	Running      State = "running"
	Compensating State = "compensating" // undoing what was done, in reverse
	Stuck        State = "stuck"        // waits for a person: Retry, Settle or Cancel
	Done         State = "done"
	Failed       State = "failed"    // and compensated
	Cancelled    State = "cancelled" // and compensated
)

// Ended reports whether nothing more will happen.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// StepState is where a step stands.
type StepState string

const (
	StepWaiting StepState = "waiting"
	StepRunning StepState = "running"
	StepDone    StepState = "done"
	StepSkipped StepState = "skipped" // its condition was false, or it failed and on_failure is skip
	StepFailed  StepState = "failed"
)

// TaskState is where one item of a step stands, or its undo.
//
//	waiting -> running -> done, failed, skipped
//	             | ^
//	             v |
//	 retrying (a timer), doubt (a probe), held (a person)
type TaskState string

const (
	TaskWaiting  TaskState = "waiting"
	TaskRunning  TaskState = "running"
	TaskRetrying TaskState = "retrying" // the next attempt starts at RetryAt
	TaskDoubt    TaskState = "doubt"    // whether it had its effect is not known; the probe is asked
	TaskHeld     TaskState = "held"     // waits for a person
	TaskDone     TaskState = "done"
	TaskFailed   TaskState = "failed"
	TaskSkipped  TaskState = "skipped" // of an undo that failed and may
)

// Execution is one run of a definition.
type Execution struct {
	ID      string         `json:"id"`
	Flow    string         `json:"flow"`
	Version int            `json:"version"`
	Key     string         `json:"key,omitempty"`
	Actor   string         `json:"actor,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Parent  string         `json:"parent,omitempty"` // the execution that called this one as a sub-flow
	Params  map[string]any `json:"params,omitempty"`
	State   State          `json:"state"`
	Target  State          `json:"target,omitempty"` // how it will end once compensated
	Paused  bool           `json:"paused,omitempty"`
	Step    string         `json:"step,omitempty"`    // the step that it is at
	Waiting string         `json:"waiting,omitempty"` // what for, if for a person
	Wake    Wake           `json:"wake"`
	Started time.Time      `json:"started"`
	Updated time.Time      `json:"updated"`
	Ended   time.Time      `json:"ended,omitzero"`
	Error   *Error         `json:"error,omitempty"`
	Steps   []StepStatus   `json:"steps,omitempty"` // not in lists
	Seq     int64          `json:"seq"`             // of the last event

	def     *Definition
	vars    map[string]any // for expressions; outputs are decoded when first used
	cursor  int            // the step that it is at
	undoing int            // the step that compensation is at
	floor   int            // the step at which compensation ends
	active  int            // forward attempts and probes in flight
	undos   int            // undo attempts in flight
	timers  int            // tasks and undos that wait for a timer
	held    int            // tasks and undos that wait for a person
	items   []any          // of the each step at cursor
	pauser  string
	tagged  map[string]bool // devices whose tags are stored, as far as this copy knows
}

// StepStatus is where one step of an execution stands.
type StepStatus struct {
	Name    string          `json:"name"`
	Stage   string          `json:"stage,omitempty"`
	Tool    string          `json:"tool,omitempty"`
	State   StepState       `json:"state"`
	Started time.Time       `json:"started,omitzero"`
	Ended   time.Time       `json:"ended,omitzero"`
	Fanned  bool            `json:"fanned,omitempty"` // one task per entry of a list
	Tasks   []Task          `json:"tasks,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Reason  string          `json:"reason,omitempty"` // why it was skipped
	Error   *Error          `json:"error,omitempty"`
	// Skipping: a person skips it, and what runs of it is being stopped.
	Skipping bool `json:"skipping,omitempty"`
	Round    int  `json:"round,omitempty"` // how often the execution was taken back over the step

	next    int // the next task to start
	active  int // tasks started and not ended
	failed  int
	undo    int // the next task to undo, plus one; counts down
	undos   int // undos started and not ended
	lastErr *Error
}

// Task is one item of a step: all of its attempts.
type Task struct {
	Item    int             `json:"item"`
	State   TaskState       `json:"state"`
	Device  string          `json:"device,omitempty"`
	Attempt int             `json:"attempt"` // the number of the last attempt, from 1
	Tries   int             `json:"tries"`   // attempts that count towards the limit
	Started time.Time       `json:"started,omitzero"`
	Ended   time.Time       `json:"ended,omitzero"`
	RetryAt time.Time       `json:"retry_at,omitzero"`
	Input   json.RawMessage `json:"input,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Logs    string          `json:"logs,omitempty"`
	Undo    *UndoStatus     `json:"undo,omitempty"`
	// Stopping is set while what runs is being stopped because a person gave it up; it will have been its error.
	Stopping *Error `json:"stopping,omitempty"`

	probes int
}

// inFlight reports whether an attempt or a probe runs.
func (t *Task) inFlight() bool {
	return t.State == TaskRunning || t.State == TaskDoubt && t.RetryAt.IsZero()
}

// UndoStatus is the undo of one task.
type UndoStatus struct {
	Tool    string    `json:"tool"`
	State   TaskState `json:"state"`
	Attempt int       `json:"attempt"`
	Tries   int       `json:"tries"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	RetryAt time.Time `json:"retry_at,omitzero"`
	Error   *Error    `json:"error,omitempty"`
	Logs    string    `json:"logs,omitempty"`
}

// WakeKind is what will move an execution on. Each open execution has exactly one.
type WakeKind string

const (
	WakeNone     WakeKind = "none"     // it has ended
	WakeSignal   WakeKind = "signal"   // the signal For, or the time At if there is one
	WakeRunnable WakeKind = "runnable" // the engine, at once
	WakeTimer    WakeKind = "timer"    // the time At
	WakeLease    WakeKind = "lease"    // the end of attempts that a live engine or device holds
	WakePerson   WakeKind = "person"   // For says what the person is asked
)

// Wake is the one source that moves an execution on.
type Wake struct {
	Kind WakeKind  `json:"kind"`
	At   time.Time `json:"at,omitzero"`
	For  string    `json:"for,omitempty"`
}

// newExecution returns the state before the first event.
func newExecution(def *Definition, id string) *Execution {
	x := &Execution{ID: id, Flow: def.Name, Version: def.Version, def: def, State: Running, Steps: make([]StepStatus, len(def.Steps))}
	for i, step := range def.Steps {
		x.Steps[i] = StepStatus{Name: step.Name, Stage: step.Stage, Tool: step.Tool, State: StepWaiting}
	}
	return x
}

// shown returns a copy that is no longer the engine's, secrets struck out.
func (x *Execution) shown() Execution {
	out := *x
	out.vars, out.items = nil, nil
	out.Wake = x.wake()
	if out.Params = nil; len(x.Params) > 0 {
		out.Params = maps.Clone(x.Params)
	}
	out.Steps = slices.Clone(x.Steps)
	for i := range out.Steps {
		out.Steps[i].Tasks = slices.Clone(out.Steps[i].Tasks)
	}
	return redact(out, x.def.secrets(x.Params))
}

// wake computes the source that moves the execution on.
func (x *Execution) wake() Wake {
	switch {
	case x.State.Ended():
		return Wake{Kind: WakeNone}
	case x.State == Stuck:
		return Wake{Kind: WakePerson, For: x.Waiting}
	case x.active+x.undos > 0:
		return Wake{Kind: WakeLease}
	case x.Paused:
		return Wake{Kind: WakePerson, For: "paused by " + x.pauser}
	case x.timers > 0:
		return Wake{Kind: WakeTimer, At: x.firstTimer()}
	}
	return Wake{Kind: WakeRunnable}
}

// firstTimer returns the earliest time at which a task goes on.
func (x *Execution) firstTimer() time.Time {
	var first time.Time
	earlier := func(at time.Time) {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for i := range x.Steps {
		for j := range x.Steps[i].Tasks {
			task := &x.Steps[i].Tasks[j]
			earlier(task.RetryAt)
			if task.Undo != nil {
				earlier(task.Undo.RetryAt)
			}
		}
	}
	return first
}

func (x *Execution) task(step, item int) *Task {
	if step < 0 || step >= len(x.Steps) || item < 0 || item >= len(x.Steps[step].Tasks) {
		return nil
	}
	return &x.Steps[step].Tasks[item]
}

func (x *Execution) stepIndex(name string) int {
	if x.cursor < len(x.Steps) && x.Steps[x.cursor].Name == name {
		return x.cursor
	}
	if x.undoing >= 0 && x.undoing < len(x.Steps) && x.Steps[x.undoing].Name == name {
		return x.undoing
	}
	for i := range x.Steps {
		if x.Steps[i].Name == name {
			return i
		}
	}
	return -1
}
