package flow

import "slices"

// Whether there is something for the engine to do in an execution that waits is asked after each of its events, and there may be 10,000 branches: so the
// blocks are noted in which an event may have brought something, and only those are looked at. Where there turns out to be nothing, the note goes.

// note has a block looked at.
func (x *Execution) note(b int) {
	if state := &x.blocks[b]; !state.noted {
		state.noted = true
		x.noted = append(x.noted, b)
	}
}

// noteStep has those blocks looked at to which an event of a step may have brought something: its own, and the one around that.
func (x *Execution) noteStep(at int) {
	b := x.shape.steps[at].block
	x.note(b)
	if owner := x.shape.blocks[b].owner; owner >= 0 {
		x.note(x.shape.steps[owner].block)
	}
}

// noteAll has every block looked at, and finds out anew who listens for signals.
func (x *Execution) noteAll() {
	x.noted, x.listening = x.noted[:0], nil
	for b := range x.blocks {
		x.blocks[b].noted = false
		x.note(b)
	}
	for _, at := range x.parked[waitSignal] {
		if t := x.task(at, 0); t != nil && t.State == TaskParked {
			x.listen(at, t.Signal, true)
		}
	}
}

// listen notes that a step waits for a signal, or no longer does.
func (x *Execution) listen(at int, signal string, waits bool) {
	list := x.listening[signal]
	i, found := slices.BinarySearch(list, at)
	switch {
	case waits && !found:
		if x.listening == nil {
			x.listening = map[string][]int{}
		}
		x.listening[signal] = slices.Insert(list, i, at)
	case !waits && found && len(list) == 1:
		delete(x.listening, signal)
	case !waits && found:
		x.listening[signal] = slices.Delete(list, i, i+1)
	}
	x.noteListener(signal)
}

// noteListener has the first step that waits for a signal looked at, if one is kept.
func (x *Execution) noteListener(signal string) {
	if first := x.listener(signal); first >= 0 && len(x.kept[signal]) > 0 {
		x.noteStep(first)
	}
}

// listener returns the first step of the document that waits for a signal, or -1.
func (x *Execution) listener(signal string) int {
	if list := x.listening[signal]; len(list) > 0 {
		return list[0]
	}
	return -1
}

// runnable reports whether there is something for the engine to do: an execution that was told something while no engine ran may both wait and have work.
func (x *Execution) runnable() bool {
	for last := len(x.noted) - 1; last >= 0; last-- {
		b := x.noted[last]
		if x.reachable(b) && x.ready(b) {
			return true
		}
		x.noted = x.noted[:last]
		x.blocks[b].noted = false
	}
	return false
}

// reachable reports whether the execution is in a block: it has begun and not ended, and so have those around it.
func (x *Execution) reachable(b int) bool {
	state, block := &x.blocks[b], &x.shape.blocks[b]
	if block.owner < 0 {
		return true
	}
	owner := &x.Steps[block.owner]
	return state.entered && state.pos < len(block.steps) && owner.State != StepWaiting && owner.open > 0 && x.here(block.owner)
}

// ready reports whether there is something to do at the step to which a block has come, or behind the block's last one. What the step holds are blocks of
// their own.
func (x *Execution) ready(b int) bool {
	state, block := &x.blocks[b], &x.shape.blocks[b]
	if state.pos == len(block.steps) {
		return true
	}
	at := block.steps[state.pos]
	s, step := &x.Steps[at], x.shape.steps[at].step
	switch {
	case s.State == StepWaiting:
		return true
	case s.open > 0:
		return false
	case s.active == 0:
		return true
	case s.parked > 0 && step.Signal != "":
		return len(x.kept[s.Tasks[0].Signal]) > 0
	case s.parked > 0 && step.Approve != nil:
		return len(s.Approvals) >= max(step.Approve.Count, 1)
	}
	return s.Fanned && s.next < len(s.Tasks) && s.active < step.Parallel && step.Batch == 0 && s.failed == 0
}
