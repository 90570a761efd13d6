package flow

import (
	"encoding/json"
	"time"
)

// What people do in the simulation.

// pause has somebody pause the execution, and resume it after a while.
func (s *simWorld) pause() {
	if s.Up(simEngine) {
		s.post(input{kind: inPause, actor: "person"})
	}
	s.After("", time.Duration(s.Rand().IntN(20_000))*time.Millisecond, s.resume)
}

func (s *simWorld) resume() {
	if s.Up(simEngine) {
		s.post(input{kind: inResume, actor: "person"})
	}
	if !s.Up(simEngine) || s.disk.Paused {
		s.After("", time.Second, s.resume)
	}
}

// signal sends a signal until it is acknowledged, and now and then once more.
func (s *simWorld) signal(id string, more int) {
	if s.signals[id] > 0 {
		more++
	}
	if s.Up(simEngine) {
		s.post(input{kind: inSignal, name: "go", id: id, result: Result{Output: json.RawMessage(`{"n":1}`)}})
	}
	if more < 2 {
		s.After("", time.Duration(500+s.Rand().IntN(5000))*time.Millisecond, func() { s.signal(id, more) })
	}
}

// answer has somebody answer what people are asked.
func (s *simWorld) answer() {
	if !s.Up(simEngine) || s.x.State.Ended() {
		return
	}
	asked := ""
	for i := range s.x.Steps {
		if s.program().steps[i].Approve != nil && s.x.here(i) {
			asked = s.x.Steps[i].Name
		}
	}
	in := input{kind: inApprove, step: asked, actor: []string{"ann", "bob", "eve"}[s.Rand().IntN(3)]}
	if s.Rand().IntN(8) == 0 {
		in.kind = inRefuse
	}
	s.post(in)
}

// intervene has a person do something to the execution.
func (s *simWorld) intervene() {
	if !s.Up(simEngine) || s.x.State.Ended() {
		return
	}
	var spots, reached []int
	for i := range s.x.Steps {
		if s.x.here(i) {
			spots = append(spots, i)
		}
		if s.x.reached(i) {
			reached = append(reached, i)
		}
	}
	if len(spots) == 0 {
		return
	}
	if s.Rand().IntN(8) == 0 {
		s.post(input{kind: inMigrate, program: s.versions[s.Rand().IntN(2)], actor: "person"})
		return
	}
	if s.Rand().IntN(8) == 0 {
		s.pause()
		return
	}
	at := spots[s.Rand().IntN(len(spots))]
	in := input{step: s.x.Steps[at].Name, item: s.Rand().IntN(max(1, len(s.x.Steps[at].Tasks))), actor: "person"}
	switch s.Rand().IntN(5) {
	case 4:
		for i, plan := range s.program().steps { // the first that has not ended
			if s.x.Steps[i].Ended.IsZero() && plan.holds() && len(plan.Branches) == 0 {
				in.kind, in.step, in.name = inChoose, plan.Name, plan.ways()[s.Rand().IntN(len(plan.ways()))]
				break
			}
		}
		if in.kind == 0 {
			return
		}
	case 0:
		in.kind = inSkip
		if s.Rand().IntN(2) == 0 && !s.x.Steps[at].Fanned {
			in.result.Output = json.RawMessage(`{"ok":true}`)
		}
	case 1:
		in.kind = inFail
	case 2:
		if s.program().steps[at].effect == Manual {
			return // a person looks first: askPerson
		}
		in.kind = inRetryStep
	default:
		in.kind, in.step = inBack, s.x.Steps[reached[s.Rand().IntN(len(reached))]].Name
	}
	s.Trace("person: %d %s %d", in.kind, in.step, in.item)
	s.post(in)
}

// askPerson has somebody look at an execution that is stuck.
func (s *simWorld) askPerson() {
	if s.x.State != Stuck || s.asking {
		return
	}
	s.asking = true
	s.After(simEngine, time.Duration(2+s.Rand().IntN(18))*time.Second, func() {
		s.asking = false
		if s.x.State != Stuck {
			return
		}
		for i := range s.x.Steps {
			for j := range s.x.Steps[i].Tasks {
				t := &s.x.Steps[i].Tasks[j]
				if t.State == TaskHeld && s.program().steps[i].effect == Manual {
					// The person goes and looks.
					step := s.x.Steps[i].Name
					s.post(input{kind: inSettle, step: step, item: j, done: s.applied[s.key(i, j)], actor: "person"})
					return
				}
				if t.State == TaskHeld && s.program().steps[i].kind().waits() != waitNothing && s.Rand().IntN(2) == 0 {
					s.post(input{kind: inSettle, step: s.x.Steps[i].Name, done: true, actor: "person"})
					return
				}
			}
		}
		s.person = true
		s.post(input{kind: inRetry, actor: "person"})
		s.person = false
	})
}
