package flow

import (
	"fmt"
	"strconv"
	"time"
)

// A step that only a person can move on holds its execution up: at once if nothing else of it runs, else when that has come to rest. Other branches that wait for
// a time or a signal go on meanwhile; then the execution is still stuck, until a person has acted.
//
//	running --(a step is held, nothing runs)--> stuck --(Retry, Settle, Skip, ...)--> running
//	                                            |   ^
//	                                            `---' another step is held: people are told of that one, too

// strand says so when something of the execution waits for a person, once for each step.
func (m *machine) strand() {
	x := m.x
	switch {
	case x.State.Ended() || x.held == 0:
		return
	case x.State == Stuck:
		if !x.untold || m.planted == "tell once" {
			return
		}
	case x.active+x.undos+x.queued > 0, x.Target == "" && x.runnable():
		return
	case m.planted == "stuck alone" && x.timers+len(x.parked[waitSignal]) > 0:
		return
	}
	what := x.heldReason()
	m.emit(Event{Kind: EventStuck, Reason: what})
	m.notice("stuck", "critical", fmt.Sprintf("flow %s waits for a person: %s", x.Flow, what))
}

// heldReason names the first task that waits for a person, and says how many more do.
func (x *Execution) heldReason() string {
	first := x.firstHeld()
	if more := x.held - 1; more > 0 {
		first += ", and " + strconv.Itoa(more) + " more"
	}
	return first
}

func (x *Execution) firstHeld() string {
	for i := x.heldFrom; i < len(x.Steps); i++ {
		s := &x.Steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			what, err := "step "+s.Name, t.Error
			switch {
			case t.Undo != nil && t.Undo.State == TaskHeld:
				what, err = "the undo of step "+s.Name, t.Undo.Error
			case t.State != TaskHeld:
				continue
			}
			x.heldFrom = i
			if s.Fanned {
				what += " item " + strconv.Itoa(j)
			}
			if err != nil {
				what += ": " + err.Error()
			}
			return what
		}
	}
	return ""
}

// besides is when a stuck execution goes on in another branch: the past if something of it runs, or could.
func (x *Execution) besides() time.Time {
	if x.active+x.undos+x.queued > 0 || x.Target == "" && !x.Paused && x.runnable() {
		return x.Updated
	}
	return x.firstTimer().at
}
