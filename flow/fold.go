package flow

import (
	"encoding/json"
	"strings"
	"time"
)

// apply folds one event into the execution. It decides nothing: whatever was decided is in the event.
func (x *Execution) apply(e *Event) {
	x.Seq++
	x.Updated = e.At
	switch e.Kind {
	case EventReturning:
		x.State, x.Target, x.Waiting = Compensating, Running, ""
		x.floor = max(x.stepIndex(e.Step), 0)
		x.undoing = x.last
		return
	case EventReturned:
		x.restart(x.floor)
		return
	}
	if e.Step != "" {
		x.applyStep(e)
		return
	}
	x.applyLocks(e)
	switch e.Kind {
	case EventStarted:
		x.root, x.exempt, x.as = e.Root, e.Exempt, e.As
		if len(x.as) == 0 && e.Actor != "" {
			x.as = []string{e.Actor}
		}
		x.Key, x.Actor, x.Reason, x.Parent, x.Params = e.Key, e.Actor, e.Reason, e.Parent, e.Params
		x.Started = e.At
		x.bindVars()
	case EventCompensating:
		x.State, x.Target, x.Error, x.Waiting = Compensating, e.Target, e.Error, ""
		x.Ended, x.floor = time.Time{}, 0
		x.undoing = x.last
	case EventMigrated:
		def := x.next
		if def == nil && x.lookup != nil {
			def, x.broken = x.lookup(e.Version)
		}
		if def != nil {
			x.hide(x.def.secrets(x.Params))
			x.become(def)
			x.Params = e.Params
			x.bindVars()
		}
	case EventSignalled:
		if x.kept == nil {
			x.kept, x.heard = map[string][]heardSignal{}, map[string]bool{}
		}
		x.kept[e.Signal] = append(x.kept[e.Signal], heardSignal{e.ID, e.Actor, e.Output})
		if e.ID != "" {
			x.heard[e.ID] = true
		}
		x.noteListener(e.Signal)
	case EventStuck:
		x.State, x.Waiting, x.untold = Stuck, e.Reason, false
	case EventPaused:
		x.Paused, x.pauser = true, e.Actor
	case EventResumed:
		x.Paused, x.pauser = false, ""
	case EventRetried:
		x.unstick()
	case EventDone, EventFailed, EventCancelled:
		x.Output = e.Output
		x.State, x.Ended = State(strings.TrimPrefix(string(e.Kind), "execution.")), e.At
		x.stopped()
	}
}

// stopped says of the steps that were under way when the execution turned back that they are no longer.
func (x *Execution) stopped() {
	for i := range x.Steps {
		s := &x.Steps[i]
		if s.State != StepRunning {
			continue
		}
		s.State, s.Skipping, s.Handling = StepStopped, false, false
		for j := range s.Tasks {
			if ended := s.Tasks[j].Ended; ended.After(s.Ended) {
				s.Ended = ended
			}
		}
		if s.Ended.IsZero() {
			s.Ended = x.Ended
		}
	}
}

// restart makes the steps from one on as if they had never begun. Those that hold it stay open.
func (x *Execution) restart(from int) {
	outputs, _ := x.vars["steps"].(map[string]any)
	for i := from; i < len(x.Steps); i++ {
		delete(outputs, x.Steps[i].Name)
		chosen := x.Steps[i].Chosen
		x.Steps[i] = x.fresh(i, x.Steps[i].Round+1)
		x.Steps[i].Chosen = chosen
		for _, b := range x.shape.steps[i].blocks {
			x.blocks[b] = blockState{}
		}
	}
	for at := from; at >= 0; {
		in := x.shape.steps[at]
		x.blocks[in.block].pos = in.pos
		if at = in.parent; at >= 0 {
			x.reopen(at, from)
		}
	}
	x.noteAll()
	x.State, x.Target, x.floor, x.last = Running, "", 0, from-1
	x.Step = x.Steps[from].Name
}

// reopen brings the blocks of a step back of which the steps from one on begin anew.
func (x *Execution) reopen(at, from int) {
	x.Steps[at].open = 0
	for _, b := range x.shape.steps[at].blocks {
		state, steps := &x.blocks[b], x.shape.blocks[b].steps
		if state.entered && len(steps) > 0 && steps[0] >= from {
			state.pos = 0
		}
		if state.entered && state.pos < len(steps) {
			x.Steps[at].open++
		}
	}
}

// unhold makes a step that could not begin as if it had not been looked at.
func (x *Execution) unhold(s *StepStatus) {
	if s.unopened() {
		x.held--
		chosen := s.Chosen
		*s = x.fresh(s.at, s.Round)
		s.Chosen = chosen
	}
}

// tell notes that people are to be told of a step that waits for them: once for all of its items.
func (x *Execution) tell(s *StepStatus) {
	x.untold = x.untold || !s.told
	s.told = true
}

// resolved goes on when nothing waits for a person any more, since what else ran has decided that.
func (x *Execution) resolved() {
	if x.State == Stuck && x.held == 0 {
		x.unstick()
	}
}

// unopened reports whether the step could not begin, and waits for a person.
func (s *StepStatus) unopened() bool {
	return len(s.Tasks) == 1 && s.Tasks[0].State == TaskHeld && s.Tasks[0].Attempt == 0 && s.undo == 0
}

// enter begins a block.
func (x *Execution) enter(b int) {
	x.blocks[b] = blockState{entered: true, noted: x.blocks[b].noted}
	x.note(b)
	if len(x.shape.blocks[b].steps) > 0 {
		x.Steps[x.shape.blocks[b].owner].open++
	}
}

// leave goes on behind a step that has ended.
func (x *Execution) leave(at int) {
	in := &x.shape.steps[at]
	for i := at; i < in.end && len(in.blocks) > 0; i++ { // what it holds ends with it
		if s := &x.Steps[i]; i > at && s.State == StepRunning {
			s.State, s.Ended, s.Reason, s.Skipping = StepSkipped, x.Updated, x.Steps[at].Reason, false
		}
		for _, b := range x.shape.steps[i].blocks {
			x.blocks[b].entered = false
		}
	}
	x.Steps[at].open, x.Steps[at].items = 0, nil
	block, state := &x.shape.blocks[in.block], &x.blocks[in.block]
	state.pos = in.pos + 1
	switch {
	case state.pos < len(block.steps):
		x.Step = x.Steps[block.steps[state.pos]].Name
	case block.owner >= 0:
		x.Steps[block.owner].open--
		x.Step = x.Steps[block.owner].Name
	}
}

func (x *Execution) unstick() {
	x.Waiting, x.untold = "", false
	if x.State == Stuck {
		x.State = Running
		if x.Target != "" {
			x.State = Compensating
		}
	}
}

func (x *Execution) applyStep(e *Event) {
	at := x.stepIndex(e.Step)
	if at < 0 {
		return
	}
	s := &x.Steps[at]
	x.last = max(x.last, at)
	x.noteStep(at)
	switch e.Kind {
	case EventStepHeld, EventAttemptHeld, EventUndoHeld:
		x.heldFrom = min(x.heldFrom, at)
	}
	switch e.Kind {
	case EventStepEntered:
		x.unhold(s)
		s.State, s.Started, s.Case = StepRunning, e.At, e.Case
		for _, b := range x.shape.steps[at].blocks {
			if block := &x.shape.blocks[b]; !block.handler && (e.Case == "" || e.Case == block.name) {
				x.enter(b)
			}
		}
	case EventStepChosen:
		s.Chosen = e.Case
	case EventStepHeld:
		x.tell(s)
		s.State, s.Started, s.Tasks, s.active, s.undo = StepRunning, e.At, []Task{{State: TaskHeld, Error: e.Error}}, 1, 0
		x.held++
		x.Step = s.Name
	case EventStepRetried:
		x.unhold(s)
	case EventStepRepeating:
		s.Tasks = append(s.Tasks, Task{Item: e.Item, State: TaskWaiting})
		s.undo = len(s.Tasks)
		if !e.RetryAt.IsZero() {
			t := &s.Tasks[e.Item]
			t.State, t.RetryAt = TaskRetrying, e.RetryAt
			s.active++
			x.count(t.State, t.RetryAt, 1, false)
			x.clock.push(dueTime{t.RetryAt, s.at, t.Item, false})
		}
	case EventStepHandling:
		if s.State == StepWaiting {
			s.Started = e.At
		}
		s.State, s.Handling, s.Error = StepRunning, true, e.Error
		for _, b := range x.shape.steps[at].blocks {
			if x.shape.blocks[b].handler {
				x.enter(b)
			}
		}
	case EventStepFanned:
		s.Fanned, s.State, s.Started = true, StepRunning, e.At
		s.Tasks = make([]Task, e.Items)
		for i := range s.Tasks {
			s.Tasks[i] = Task{Item: i, State: TaskWaiting}
		}
		s.undo = e.Items
	case EventStepDone, EventStepSkipped:
		s.State, s.Ended, s.Reason, s.Error, s.Skipping, s.Handling = StepDone, e.At, e.Reason, e.Error, false, false
		if e.Kind == EventStepSkipped {
			s.State = StepSkipped
		} else {
			if s.Output = e.Output; s.Output == nil {
				s.Output = s.output()
			}
		}
		x.leave(at)
	case EventStepSkipping:
		s.Skipping, s.Output, s.Reason = true, e.Output, e.Reason
	case EventAttemptStopping:
		if t := x.task(at, e.Item); t != nil {
			t.Stopping = e.Error
		}
	case EventAttemptWaits:
		if t := x.task(at, e.Item); t != nil {
			t.Waits = e.Text
			x.saidStep, x.saidItem = s.Name, e.Item
		}
	case EventStepFailed:
		s.State, s.Ended, s.Error = StepFailed, e.At, e.Error
	case EventSettled:
		x.unstick()
	case EventApproved:
		s.Approvals = append(s.Approvals, Approval{e.Actor, e.Reason, e.At})
	case EventRefused:
	case EventNoticed:
		s.Started = e.At
	case EventUndoStarted, EventUndoDone, EventUndoFailed, EventUndoHeld, EventUndoSkipped:
		x.applyUndo(s, e)
	default:
		x.applyTask(s, e)
	}
}

// output composes a step's output from its tasks.
func (s *StepStatus) output() json.RawMessage {
	if !s.Fanned {
		if n := len(s.Tasks); n > 0 {
			return s.Tasks[n-1].Output
		}
		return nil
	}
	size := 16
	for i := range s.Tasks {
		size += len(s.Tasks[i].Output) + 5
	}
	out := append(make([]byte, 0, size), `{"items":[`...)
	for i := range s.Tasks {
		if i > 0 {
			out = append(out, ',')
		}
		if s.Tasks[i].State == TaskDone {
			out = append(out, s.Tasks[i].Output...)
		} else {
			out = append(out, "null"...)
		}
	}
	return append(out, "]}"...)
}

// count adds n to the counter to which a task in this state belongs.
func (x *Execution) count(state TaskState, retryAt time.Time, n int, undo bool) {
	switch {
	case state == TaskParked: // see parks
	case !retryAt.IsZero():
		x.timers += n
	case state == TaskHeld:
		x.held += n
	case state == TaskQueued:
		if x.queued += n; x.queued == 0 {
			x.queuedFor = ""
		}
	case (state == TaskRunning || state == TaskDoubt) && undo:
		x.undos += n
	case state == TaskRunning || state == TaskDoubt:
		x.active += n
	}
}

// parks counts a parked task in, or out.
func (x *Execution) parks(s *StepStatus, t *Task, in bool) {
	if t.State != TaskParked {
		return
	}
	kind, n := x.shape.steps[s.at].step.kind().waits(), 1
	if in {
		x.parked[kind].add(s)
	} else {
		n = -1
		x.parked[kind].remove(s, x.Steps)
	}
	if kind == waitSignal {
		x.listen(s.at, t.Signal, in)
	}
	if kind == waitTime {
		x.timers += n
	}
}

func open(state TaskState) bool {
	return state == TaskQueued || state == TaskRunning || state == TaskRetrying || state == TaskDoubt || state == TaskHeld || state == TaskParked
}

func (x *Execution) applyTask(s *StepStatus, e *Event) {
	if s.State == StepWaiting {
		s.State, s.Started = StepRunning, e.At
	}
	if len(s.Tasks) == 0 && !s.Fanned {
		s.Tasks, s.undo = []Task{{State: TaskWaiting}}, 1
	}
	if e.Item >= len(s.Tasks) {
		return
	}
	t := &s.Tasks[e.Item]
	before := t.State
	x.count(t.State, t.RetryAt, -1, false)
	x.parks(s, t, false)
	x.hide(e.Hidden)
	t.RetryAt, t.Stopping, t.For = e.RetryAt, nil, ""
	if e.Logs != "" {
		t.Logs = e.Logs
	}
	t.Queued, t.Waits = time.Time{}, ""
	switch e.Kind {
	case EventStepParked:
		t.State, t.Error, t.For, t.Signal = TaskParked, nil, e.Text, e.Signal
		s.next = 1
		if before == TaskWaiting {
			t.Started = e.At
		} else if before == TaskHeld {
			s.Approvals = nil // all are asked again
		}
		x.Step = s.Name
	case EventAttemptQueued:
		t.prepare(s, before, e)
		t.State, t.Error, t.again, t.by = TaskQueued, nil, e.Again, e.Actor
		t.Queued, t.Waits, x.queuedFor = e.At, e.Text, "step "+s.Name+" "+e.Text
		x.Step = s.Name
	case EventAttemptStarted:
		t.prepare(s, before, e)
		t.State, t.Attempt, t.Error, t.probes = TaskRunning, e.Attempt, nil, 0
		switch {
		case !e.Again:
			t.Tries++
		case e.Actor != "":
			t.Tries = 1 // a person asked: the count starts over
		}
		x.Step = s.Name
	case EventAttemptDone:
		t.State, t.Output, t.Error, t.Ended = TaskDone, e.Output, nil, e.At
		s.next = max(s.next, e.Item+1)
		switch kept := x.kept[e.Signal]; {
		case e.Signal == "" || len(kept) == 0:
		case len(kept) == 1:
			delete(x.kept, e.Signal)
		default:
			x.kept[e.Signal] = kept[1:]
		}
	case EventAttemptFailed:
		t.State, t.Error = TaskFailed, e.Error
		s.next = max(s.next, e.Item+1)
		if !e.RetryAt.IsZero() {
			t.State = TaskRetrying
		} else {
			t.Ended = e.At
			s.failed++
			if s.lastErr == nil {
				s.lastErr = e.Error
			}
		}
	case EventAttemptDoubt:
		t.State, t.Error, t.cut = TaskDoubt, e.Error, e.Again
	case EventAttemptHeld:
		x.tell(s)
		t.State, t.Error = TaskHeld, e.Error
		s.next = max(s.next, e.Item+1)
	case EventProbeStarted:
		t.State = TaskDoubt
		t.probes++
	case EventProbeFailed:
		t.State = TaskDoubt
	}
	x.applyTaskLock(s, t, e)
	x.count(t.State, t.RetryAt, 1, false)
	x.parks(s, t, true)
	x.resolved()
	if !t.RetryAt.IsZero() {
		x.clock.push(dueTime{t.RetryAt, s.at, t.Item, false})
	}
	if open(t.State) && !open(before) {
		s.active++
	} else if !open(t.State) && open(before) {
		s.active--
	}
}

// prepare notes what an attempt runs with.
func (t *Task) prepare(s *StepStatus, before TaskState, e *Event) {
	if before == TaskWaiting || t.Attempt == 0 && t.Input == nil {
		t.Started, t.Input, t.Device = e.At, e.Input, e.Device
		s.next = max(s.next, e.Item+1)
	} else if e.Input != nil { // edited by a person
		t.Input = e.Input
	}
}

func (x *Execution) applyUndo(s *StepStatus, e *Event) {
	if e.Item >= len(s.Tasks) {
		return
	}
	t := &s.Tasks[e.Item]
	if t.Undo == nil {
		t.Undo = &UndoStatus{State: TaskWaiting, Tool: e.Tool, Started: e.At}
		s.undo = min(s.undo, e.Item)
	}
	u := t.Undo
	before := u.State
	x.count(u.State, u.RetryAt, -1, true)
	u.RetryAt = e.RetryAt
	if e.Logs != "" {
		u.Logs = e.Logs
	}
	switch e.Kind {
	case EventUndoStarted:
		u.State, u.Attempt = TaskRunning, e.Attempt
		switch {
		case !e.Again:
			u.Tries++
		case e.Actor != "":
			u.Tries = 1
		}
	case EventUndoDone:
		u.State, u.Error, u.Ended = TaskDone, nil, e.At
	case EventUndoFailed:
		u.State, u.Error = TaskRetrying, e.Error
	case EventUndoHeld:
		x.tell(s)
		u.State, u.Error = TaskHeld, e.Error
	case EventUndoSkipped:
		u.State, u.Error, u.Ended = TaskSkipped, e.Error, e.At
	}
	x.count(u.State, u.RetryAt, 1, true)
	x.resolved()
	if !u.RetryAt.IsZero() {
		x.clock.push(dueTime{u.RetryAt, s.at, t.Item, true})
	}
	if open(u.State) && !open(before) {
		s.undos++
	} else if !open(u.State) && open(before) {
		s.undos--
	}
}

// bindVars makes the variables of expressions.
func (x *Execution) bindVars() {
	for i := range x.def.Params {
		p := &x.def.Params[i]
		if value, found := x.Params[p.Name]; found && p.value != nil {
			// It was accepted at the start; what JSON made of it since is brought back to its type.
			if normal, err := p.value.accept(value); err == nil {
				x.Params[p.Name] = normal
			}
		}
	}
	params := x.Params
	if params == nil {
		params = map[string]any{}
	}
	x.vars = map[string]any{
		"params": params,
		"steps":  map[string]any{},
		"execution": map[string]any{
			"id": x.ID, "flow": x.Flow, "key": x.Key, "actor": x.Actor, "reason": x.Reason,
		},
	}
}
