package flow

import (
	"cmp"
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
	Stuck        State = "stuck"        // something of it waits for a person: Retry, Settle or Cancel. Other branches may go on meanwhile
	Done         State = "done"
	Failed       State = "failed"    // and compensated
	Cancelled    State = "cancelled" // and compensated
)

// States lists the six states.
func States() []State { return []State{Running, Compensating, Stuck, Done, Failed, Cancelled} }

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
	StepStopped StepState = "stopped" // it was under way when its execution turned back, and that has ended
)

// TaskState is where one item of a step stands, or its undo.
//
//	waiting, queued -> running -> done, failed, skipped
//	                     | ^
//	                     v |
//	 retrying (a timer), doubt (a probe), held (a person), queued (the gate)
//
// That of a step that waits is parked instead of running.
type TaskState string

const (
	TaskWaiting  TaskState = "waiting"
	TaskQueued   TaskState = "queued" // the next attempt starts when there is room, or a lock is free
	TaskRunning  TaskState = "running"
	TaskRetrying TaskState = "retrying" // the next attempt starts at RetryAt
	TaskDoubt    TaskState = "doubt"    // whether it had its effect is not known; the probe is asked
	TaskHeld     TaskState = "held"     // waits for a person
	TaskParked   TaskState = "parked"   // of a step that waits: for a time, a signal, or people's approval
	TaskDone     TaskState = "done"
	TaskFailed   TaskState = "failed"
	TaskSkipped  TaskState = "skipped" // of an undo that failed and may
)

// Execution is one run of a definition.
type Execution struct {
	ID      string          `json:"id"`
	Flow    string          `json:"flow"`
	Version int             `json:"version"`
	Key     string          `json:"key,omitempty"`
	Actor   string          `json:"actor,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Parent  string          `json:"parent,omitempty"` // the execution that called this one as a sub-flow
	Params  map[string]any  `json:"params,omitempty"`
	State   State           `json:"state"`
	Target  State           `json:"target,omitempty"` // how it will end once compensated
	Paused  bool            `json:"paused,omitempty"`
	Step    string          `json:"step,omitempty"`    // the step that it is at
	Waiting string          `json:"waiting,omitempty"` // what for, if for a person
	Wake    Wake            `json:"wake"`
	Locks   []string        `json:"locks,omitempty"` // its flow's, that it holds
	Started time.Time       `json:"started"`
	Updated time.Time       `json:"updated"`
	Ended   time.Time       `json:"ended,omitzero"`
	Error   *Error          `json:"error,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"` // what a flow returns that is done
	Steps   []StepStatus    `json:"steps,omitempty"`  // not in lists
	Seq     int64           `json:"seq"`              // of the last event

	def     *Definition
	owner   int64 // the member for which it was loaded; 0 without a Shared store
	shape   *layout
	blocks  []blockState                           // beside shape.blocks
	next    *Definition                            // that a migration goes to
	lookup  func(version int) (*Definition, error) // for those that are folded
	broken  error                                  // a version to which it was moved is not there
	vars    map[string]any                         // for expressions; outputs are decoded when first used
	last    int                                    // no step behind it has begun
	undoing int                                    // the step that compensation is at
	floor   int                                    // the step at which compensation ends
	active  int                                    // forward attempts and probes in flight
	undos   int                                    // undo attempts in flight
	timers  int                                    // tasks and undos that wait for a timer
	clock   timers                                 // theirs
	held    int                                    // tasks and undos that wait for a person
	untold  bool                                   // people do not know of all steps that wait for them
	parked  [waitPeople + 1]parked
	// Who waits for which signal: steps by name, in the order of the document.
	listening map[string][]int
	noted     []int                    // blocks in which there may be something to do; see runnable
	heldFrom  int                      // no step before it is held
	kept      map[string][]heardSignal // by name, in the order in which they came
	heard     map[string]bool          // IDs of signals
	pauser    string

	saidStep  string // the step, and the item of it, whose tool has said last what it waits for
	saidItem  int
	queued    int      // tasks that wait for the gate
	queuedFor string   // what the last of them waits for
	awaits    string   // what its flow's locks wait for
	locked    bool     // it has its flow's locks
	root      string   // of a sub-flow: the execution that was started first
	exempt    string   // from freezes; why
	as        []string // who started it, as was proved
	taken     []keyChange
	freed     []keyChange
	hidden    []string        // secrets of sub-flows, and of the versions that it was of
	tagged    map[string]bool // devices whose tags are stored, as far as this copy knows
}

// blockState is how far a block of steps has come.
type blockState struct {
	entered bool
	pos     int // within the block; behind its last step, it has ended
	noted   bool
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
	// Case is the way that an if or a switch has gone: then, else, case 0.
	Case      string     `json:"case,omitempty"`
	Approvals []Approval `json:"approvals,omitempty"` // of a step that asks for them
	// Chosen is the way that a person wants it to go.
	Chosen string `json:"chosen,omitempty"`
	// Handling: it has failed, and its handler runs.
	Handling bool `json:"handling,omitempty"`

	at      int   // its index
	open    int   // blocks of it that run
	parked  int   // its place among those that wait for the same, from 1
	items   []any // of its each
	left    any   // its output as far as it has come, while it is undone
	told    bool  // people know that it waits for them
	next    int   // the next task to start
	active  int   // tasks started and not ended
	failed  int
	undo    int // the next task to undo, plus one; counts down
	undos   int // undos started and not ended
	lastErr *Error
}

// Approval is one person's.
type Approval struct {
	By      string    `json:"by"`
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`
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
	RetryAt time.Time       `json:"retry_at,omitzero"` // when it goes on by itself
	For     string          `json:"for,omitempty"`     // what a step that waits waits for
	Signal  string          `json:"signal,omitempty"`
	Input   json.RawMessage `json:"input,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Logs    string          `json:"logs,omitempty"`
	Undo    *UndoStatus     `json:"undo,omitempty"`
	// Stopping is set while what runs is being stopped because a person gave it up; it will have been its error.
	Stopping *Error `json:"stopping,omitempty"`

	// Queued is since when the next attempt waits, Waits what for, in the state queued. In the state running, Waits is what the tool says that it waits for: the
	// last line of its log that begins with "waits:".
	Queued time.Time `json:"queued,omitzero"`
	Waits  string    `json:"waits,omitempty"`
	Lock   string    `json:"lock,omitempty"` // its exclusive key

	probes int
	cut    bool   // it is in doubt since the engine died, which is not the tool's fault
	again  bool   // queued: the start will not count
	by     string // queued: who asked for it
	asked  bool   // queued: the gate knows
	locked bool   // it holds Lock
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
	WakePerson   WakeKind = "person"   // For says what the person is asked; At is when the execution goes on without, here or in another branch, if it does
)

// Wake is the source that moves an execution on; of several, of branches, a person before a time before a signal.
type Wake struct {
	Kind WakeKind  `json:"kind"`
	At   time.Time `json:"at,omitzero"`
	For  string    `json:"for,omitempty"`
}

// newExecution returns the state before the first event.
func newExecution(def *Definition, id string) *Execution {
	shape := def.shape()
	x := &Execution{
		ID: id, Flow: def.Name, Version: def.Version, def: def, shape: shape, State: Running,
		Steps: make([]StepStatus, len(shape.steps)), blocks: make([]blockState, len(shape.blocks)), last: -1,
	}
	for i := range x.Steps {
		x.Steps[i] = x.fresh(i, 0)
	}
	x.blocks[0].entered = true
	x.note(0)
	return x
}

// fresh returns the state of a step that has not begun.
func (x *Execution) fresh(i, round int) StepStatus {
	step := x.shape.steps[i].step
	return StepStatus{Name: step.Name, Stage: step.Stage, Tool: step.Tool, State: StepWaiting, Round: round, at: i}
}

// shown returns a copy that is no longer the engine's, secrets struck out.
func (x *Execution) shown() Execution {
	out := *x
	out.vars, out.blocks, out.noted, out.listening, out.clock, out.taken, out.freed = nil, nil, nil, nil, nil, nil, nil
	if out.Waiting == "" {
		out.Waiting = cmp.Or(x.waitsFor(), x.said())
	}
	out.Wake = x.wake()
	if out.Params = nil; len(x.Params) > 0 {
		out.Params = maps.Clone(x.Params)
	}
	out.Steps = slices.Clone(x.Steps)
	tasks := 0
	for i := range out.Steps {
		tasks += len(out.Steps[i].Tasks)
	}
	room := make([]Task, 0, tasks) // of all: a step has one, mostly
	for i := range out.Steps {
		if own := out.Steps[i].Tasks; own != nil {
			from := len(room)
			room = append(room, own...)
			out.Steps[i].Tasks = room[from:len(room):len(room)]
		}
	}
	return redact(out, x.secrets())
}

// wake computes the source that moves the execution on.
func (x *Execution) wake() Wake {
	switch {
	case x.State.Ended():
		return Wake{Kind: WakeNone}
	case x.State == Stuck:
		return Wake{Kind: WakePerson, At: x.besides(), For: x.Waiting}
	case x.active+x.undos > 0:
		return Wake{Kind: WakeLease}
	case x.Paused:
		return Wake{Kind: WakePerson, For: "paused by " + x.pauser}
	case x.queued > 0 || x.awaits != "":
		return Wake{Kind: WakeRunnable, For: x.waitsFor()}
	case x.Target == "" && x.timers+len(x.parked[waitSignal])+len(x.parked[waitPeople]) > 0 && x.runnable():
		return Wake{Kind: WakeRunnable}
	case x.held > 0: // beside other branches that wait for less: a person is what must not be overlooked
		return Wake{Kind: WakePerson, At: x.firstTimer().at, For: x.heldReason()}
	case len(x.parked[waitPeople]) > 0:
		return Wake{Kind: WakePerson, At: x.firstTimer().at, For: x.waitingFor(waitPeople)}
	case x.timers > 0:
		return x.timerWake()
	case len(x.parked[waitSignal]) > 0:
		return Wake{Kind: WakeSignal, At: x.firstTimer().at, For: x.waitingFor(waitSignal)}
	}
	return Wake{Kind: WakeRunnable}
}

// said is what the tool waits for that has said so last, if it still does.
func (x *Execution) said() string {
	if x.saidStep == "" {
		return ""
	}
	t := x.task(x.stepIndex(x.saidStep), x.saidItem)
	if t == nil || t.State != TaskRunning || t.Waits == "" {
		return ""
	}
	return "step " + x.saidStep + ": " + t.Waits
}

// timerWake says what the next time is about, if that is a step that waits for it.
func (x *Execution) timerWake() Wake {
	first := x.firstTimer()
	wake := Wake{Kind: WakeTimer, At: first.at}
	if t := x.task(first.step, first.item); t != nil && t.State == TaskParked {
		wake.For = "step " + x.Steps[first.step].Name + ": " + t.For
	}
	return wake
}

func (x *Execution) task(step, item int) *Task {
	if step < 0 || step >= len(x.Steps) || item < 0 || item >= len(x.Steps[step].Tasks) {
		return nil
	}
	return &x.Steps[step].Tasks[item]
}

// stepIndex returns the index of a step, or -1.
func (x *Execution) stepIndex(name string) int {
	if at, found := x.shape.index[name]; found {
		return at
	}
	return -1
}

// here reports whether the execution is at a step: its block has come to it, and so have those around.
func (x *Execution) here(at int) bool {
	for at >= 0 {
		in := x.shape.steps[at]
		if b := x.blocks[in.block]; !b.entered || b.pos != in.pos {
			return false
		}
		at = in.parent
	}
	return true
}

// reached reports whether the execution is at a step or has been, within blocks at which it still is.
func (x *Execution) reached(at int) bool {
	in := x.shape.steps[at]
	return x.blocks[in.block].entered && x.blocks[in.block].pos >= in.pos && x.here(in.parent)
}
