package flow

import (
	"encoding/json"
	"strings"
	"time"
)

// An attempt whose start is stored and whose end is not, or that was cut off, is in doubt: the tool may have had its effect
// or not. The tool's declared effect settles it.

const (
	probeAttempts = 5
	probeBackoff  = Duration(time.Second)
	probeMax      = Duration(30 * time.Second)
)

// doubt settles an attempt whose outcome is unknown. crashed: the engine died meanwhile, which is not the tool's fault and does
// not count as a try.
func (m *machine) doubt(s *StepStatus, plan *stepPlan, t *Task, e Event, crashed bool) {
	effect := plan.effect
	if m.planted == "rerun manual" {
		effect = Keyed
	}
	switch effect {
	case Pure, Keyed:
		if !crashed {
			m.retryOrFail(s, plan, t, e)
			return
		}
		e.Kind = EventAttemptDoubt
		m.emit(e)
		m.again(s, plan, t, Event{})
	case Probe:
		e.Kind, e.Again = EventAttemptDoubt, crashed
		m.emit(e)
		m.startProbe(s, plan, t)
	default:
		if !crashed {
			e.Kind = EventAttemptHeld
			m.emit(e)
			return
		}
		e.Kind = EventAttemptDoubt
		m.emit(e)
		m.emit(Event{Kind: EventAttemptHeld, Step: s.Name, Item: t.Item, Attempt: t.Attempt, Error: e.Error})
	}
}

// again starts another attempt that does not count, with the same key.
func (m *machine) again(s *StepStatus, plan *stepPlan, t *Task, by Event) {
	if plan.kind().waits() != waitNothing {
		m.park(s, plan, by)
		return
	}
	if s.unopened() {
		m.emit(Event{Kind: EventStepRetried, Step: s.Name, Actor: by.Actor, Reason: by.Reason})
		m.ready = append(m.ready, plan.block)
		return
	}
	if t.Attempt == 0 && t.Input == nil { // its input could not be resolved
		m.startTask(s, plan, t.Item)
		return
	}
	m.begin(s, plan, t.Item, Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt + 1, Again: true, Device: t.Device, Actor: by.Actor, Reason: by.Reason})
}

func (m *machine) startProbe(s *StepStatus, plan *stepPlan, t *Task) {
	m.emit(Event{Kind: EventProbeStarted, Step: s.Name, Item: t.Item, Attempt: t.Attempt, Tool: plan.probe, Device: t.Device, Error: t.Error})
	m.runProbe(s, plan, t)
}

// probeKind tells the calls of the probe from those of the tool, and from one another.
func (t *Task) probeKind() string { return "p" + itoa(t.probes) + "." }

func (m *machine) runProbe(s *StepStatus, plan *stepPlan, t *Task) {
	call := m.call(s, t.Item, t.Attempt, t.probeKind())
	call.Tool, call.Probe, call.Timeout = plan.probe, true, time.Duration(plan.Timeout)
	m.actions = append(m.actions, action{kind: actRun, call: call, remote: t.Device != ""})
}

// probeEnded takes in what the probe says.
func (m *machine) probeEnded(s *StepStatus, plan *stepPlan, t *Task, in input) {
	e := Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt, Logs: in.result.Logs, Ran: in.result.Ran, Error: in.result.Error}
	var said struct {
		Done   *bool           `json:"done"`
		Output json.RawMessage `json:"output"`
	}
	if e.Error == nil {
		if err := json.Unmarshal(in.result.Output, &said); err != nil || said.Done == nil {
			e.Error = &Error{Code: CodeOutput, Message: `the probe must answer {"done": true or false, "output": {...}}`}
		}
	}
	switch {
	case t.Stopping != nil:
		m.dropped(s, plan, e, t.Stopping)
	case m.turning(s):
		e.Kind, e.Error = EventAttemptFailed, &Error{Code: CodeCancelled, Message: "given up before it was known whether it had its effect", Unknown: true}
		m.emit(e)
	case e.Error != nil && t.probes < probeAttempts:
		e.Kind = EventProbeFailed
		e.RetryAt = m.now.Add(Retry{Backoff: probeBackoff, Max: probeMax}.delay(t.probes))
		m.emit(e)
		m.timer(s, t.Item, false, e.RetryAt)
	case e.Error != nil:
		e.Kind = EventAttemptHeld
		m.emit(e)
	case *said.Done:
		if len(said.Output) == 0 {
			said.Output = json.RawMessage("{}")
		}
		m.succeed(s, plan, t, e, said.Output, nil)
	case t.cut:
		m.again(s, plan, t, Event{})
	default:
		e.Error = &Error{Code: CodeUnprobed, Message: "the probe says that it had no effect"}
		m.retryOrFail(s, plan, t, e)
	}
}

// recover looks at an execution that an engine has just loaded: what ran in the process that died is in doubt, what runs on
// devices is asked for again under the same attempt, and timers are set.
func (m *machine) recover() {
	if m.x.State == Stuck && (m.x.held == 0 || strings.HasPrefix(m.x.Waiting, strandedText)) {
		m.emit(Event{Kind: EventRetried, Actor: "engine", Reason: "its definition compiles again"})
	}
	lost := &Error{Code: CodeLost, Message: "the engine stopped while it ran", Unknown: true}
	for i := range m.x.Steps {
		s, plan := &m.x.Steps[i], m.p.steps[i]
		if s.active == 0 && s.undos == 0 {
			continue
		}
		for j := range s.Tasks {
			t := &s.Tasks[j]
			m.recoverTask(s, plan, t, lost)
			if u := t.Undo; u != nil && u.State == TaskRunning {
				if plan.undoOn || plan.undoTool == subflowUndo {
					m.runUndo(s, plan, t, true)
				} else {
					m.startUndo(s, plan, t, Event{Again: true})
				}
			}
		}
	}
	if !m.x.Paused {
		m.rearm()
	}
}

func (m *machine) recoverTask(s *StepStatus, plan *stepPlan, t *Task, lost *Error) {
	e := Event{Step: s.Name, Item: t.Item, Attempt: t.Attempt, Error: lost}
	switch {
	case t.State == TaskRunning && (t.Device != "" || plan.Flow != ""):
		m.run(s, plan, t.Item, true)
		if m.turning(s) || t.Stopping != nil {
			m.stop(s, t)
		}
	case t.Stopping != nil:
		m.dropped(s, plan, e, t.Stopping)
	case t.State == TaskRunning && m.turning(s):
		e.Kind = EventAttemptFailed
		m.emit(e)
	case t.State == TaskRunning:
		m.doubt(s, plan, t, e, true)
	case t.State == TaskDoubt && t.RetryAt.IsZero():
		m.runProbe(s, plan, t)
	}
}
