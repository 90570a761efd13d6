package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Tools, their effects on the world, and the device on which some of them run.

func lostResult(why string) Result {
	return Result{Error: &Error{Code: CodeLost, Message: why, Unknown: true}}
}

// invoke runs a tool on a node: its effect comes some time before its end.
func (s *simWorld) invoke(c Call, node string, end func(Result)) {
	s.invariants(c)
	took := time.Duration(10+s.Rand().IntN(2000)) * time.Millisecond
	dice := s.Rand().IntN(100)
	if s.Healing() {
		dice = 99
	}
	still := func() bool {
		_, on := s.running[c.ID]
		return node == simEngine || on
	}
	s.After(node, took/2, func() {
		if still() && dice >= 10 {
			s.effect(c)
		}
	})
	s.After(node, took, func() {
		switch {
		case !still():
		case dice < 10:
			end(Result{Error: &Error{Code: "failed", Message: "no luck"}})
		case dice < 14 && !c.Undo && !c.Probe:
			end(Result{Error: &Error{Code: CodeTimeout, Message: "too slow", Unknown: true}})
		case c.Probe:
			end(Result{Output: mustJSON(map[string]any{"done": s.applied[c.Key]})})
		default:
			end(Result{Output: json.RawMessage(`{"ok":true}`)})
		}
	})
}

// invariants looks at each time a tool is started.
func (s *simWorld) invariants(c Call) {
	if c.Probe || c.Undo {
		return
	}
	at := s.versions[1].index[c.Step]
	if before, again := s.unsettled[spot(c)]; again {
		// I3: a tool whose effect is unacknowledged is run again only with its idempotency key.
		if before.Key != c.Key {
			s.Fail(fmt.Errorf("I3: step %s item %d runs again with key %s, before with %s", c.Step, c.Item, c.Key, before.Key))
		}
		if s.versions[1].steps[at].effect == Manual && !s.person {
			s.Fail(fmt.Errorf("I3: step %s item %d is manual, and runs again though nobody knows what became of it", c.Step, c.Item))
		}
	}
	s.unsettled[spot(c)] = c
	if s.done[spot(c)] {
		s.Fail(fmt.Errorf("step %s item %d runs again, and it is done", c.Step, c.Item))
	}
}

// effect is what a tool does to the world. Keyed tools do it once per key, others each time.
func (s *simWorld) effect(c Call) {
	switch {
	case c.Undo:
		if s.applied[c.Key] {
			delete(s.applied, c.Key)
			s.doubled[spot(c)]--
		}
	case c.Probe || c.Tool == "pure":
	case c.Tool == "keyed" || c.Tool == "remote":
		if s.applied[c.Key] {
			return
		}
		fallthrough
	default:
		s.applied[c.Key] = true
		s.doubled[spot(c)]++
		if s.doubled[spot(c)] > 1 {
			s.Fail(fmt.Errorf("step %s item %d has its effect twice", c.Step, c.Item))
		}
	}
}

// ask hands an attempt to the device; reask does so again for all that are not answered.
func (s *simWorld) ask(c Call) {
	s.Send(simEngine, simDevice, func() { s.take(c) })
}

func (s *simWorld) reask() {
	s.Every(simEngine, time.Second, func() {
		for _, id := range slices.Sorted(maps.Keys(s.asked)) {
			s.ask(s.asked[id])
		}
	})
}

// take is the worker: it runs an attempt once, and ends others with the same key first.
func (s *simWorld) take(c Call) {
	if result, known := s.journal[c.ID]; known {
		if result != nil {
			s.tell(c, *result)
		}
		return
	}
	for id, other := range s.running {
		if other.Key == c.Key {
			delete(s.running, id)
			s.finish(id, lostResult("superseded"))
		}
	}
	s.journal[c.ID], s.running[c.ID] = nil, c
	s.invoke(c, simDevice, func(r Result) {
		delete(s.running, c.ID)
		s.journal[c.ID] = &r
		s.tell(c, r)
	})
}

func (s *simWorld) finish(id string, r Result) {
	if s.journal[id] == nil {
		s.journal[id] = &r
	}
}

func (s *simWorld) tell(c Call, r Result) {
	s.Send(simDevice, simEngine, func() {
		delete(s.asked, c.ID)
		s.post(ended(c, r))
	})
}

func (s *simWorld) deviceRestart() {
	for id, result := range s.journal {
		if result == nil {
			s.finish(id, lostResult("the worker stopped"))
		}
	}
}
