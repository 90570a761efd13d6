package flow

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// walk is runnable without notes: it looks at every block that is open.
func (x *Execution) walk(b int) bool {
	state, block := &x.blocks[b], &x.shape.blocks[b]
	if state.pos < len(block.steps) {
		at := block.steps[state.pos]
		if s := &x.Steps[at]; s.State != StepWaiting && s.open > 0 {
			for _, inner := range x.shape.steps[at].blocks {
				if x.blocks[inner].entered && x.blocks[inner].pos < len(x.shape.blocks[inner].steps) && x.walk(inner) {
					return true
				}
			}
			return false
		}
	}
	return x.ready(b)
}

// agreesWithWalk says where the notes of an execution mislead.
func agreesWithWalk(x *Execution) error {
	if x.State.Ended() || x.Target != "" {
		return nil
	}
	if noted, walked := x.runnable(), x.walk(0); noted != walked {
		return fmt.Errorf("after event %d, runnable is %t by its notes and %t by its blocks", x.Seq, noted, walked)
	}
	return nil
}

const branching = `
flow: branching
steps:
  - name: all
    branches:
      one: [{name: s1, signal: go}, {name: s2, signal: go}]
      two:
        - name: inner
          branches:
            left: [{name: s3, signal: go, timeout: 1h, on_failure: skip}, {name: s4, signal: on}]
            right: [{name: s5, tool: keyed}, {name: s6, sleep: 10m}, {name: s7, signal: on}]
      three: [{name: s8, approve: {text: "well?", count: 2}}, {name: s9, signal: go}]
      four: [{name: s10, tool: keyed, on_failure: pause}, {name: s11, signal: on}]
  - {name: last, signal: go}
`

// What the notes say of an execution is what its blocks say, whatever it is told, whether an engine works on it or not, and after it was read again.
func TestNotesAgreeWithBlocks(t *testing.T) {
	t.Parallel()
	p, faults := compile([]byte(branching), scriptTools())
	if len(faults) > 0 {
		t.Fatal(faults[0])
	}
	ended := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		x := newExecution(&p.Definition, "x")
		m := &machine{p: p, x: x, now: at}
		m.emit(Event{Kind: EventStarted, Flow: "branching", Version: 1})
		m.step(input{kind: inGo})
		events, calls, timers := m.events, []action{}, []action{}
		take := func(m *machine) {
			for _, a := range m.actions {
				switch a.kind {
				case actRun:
					calls = append(calls, a)
				case actTimer:
					timers = append(timers, a)
				}
			}
		}
		take(m)
		for n := 0; n < 200 && !x.State.Ended(); n++ {
			at = at.Add(time.Second)
			in := input{kind: inGo}
			switch names := strings.Fields("s1 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 inner last"); r.IntN(9) {
			case 0, 1:
				in = input{kind: inSignal, name: []string{"go", "on"}[r.IntN(2)], id: fmt.Sprint(n), result: Result{Output: []byte("1")}}
			case 2:
				in = input{kind: inApprove, step: "s8", actor: []string{"ann", "bob"}[r.IntN(2)]}
			case 3:
				if len(calls) > 0 {
					c := calls[0].call
					calls = calls[1:]
					in = input{kind: inEnded, step: c.Step, item: c.Item, attempt: c.Attempt, result: Result{Output: []byte(`{"text":"ok"}`)}}
					if r.IntN(3) == 0 {
						in.result = Result{Error: failure("broken", "it is")}
					}
				}
			case 4:
				if len(timers) > 0 {
					a := timers[0]
					timers = timers[1:]
					at = at.Add(time.Hour)
					in = input{kind: inDue, step: a.call.Step, item: a.call.Item, at: a.at}
				}
			case 5:
				in = input{kind: inSkip, step: names[r.IntN(len(names))], actor: "ann"}
			case 6:
				in = input{kind: inRetryStep, step: names[r.IntN(len(names))], actor: "ann"}
			case 7:
				if r.IntN(4) == 0 {
					in = input{kind: inBack, step: names[r.IntN(len(names))], actor: "ann"}
				}
			case 8:
				in = input{kind: []inputKind{inPause, inResume}[r.IntN(2)], actor: "ann"}
			}
			m := &machine{p: p, x: x, now: at, hold: r.IntN(3) == 0}
			m.step(in)
			take(m)
			events = append(events, m.events...)
			if err := agreesWithWalk(x); err != nil {
				t.Fatalf("seed %d, input %d: %v", seed, n, err)
			}
			if r.IntN(8) == 0 {
				again := newExecution(&p.Definition, "x")
				for i := range events {
					again.apply(&events[i])
					if err := agreesWithWalk(again); err != nil {
						t.Fatalf("seed %d, read again: %v", seed, err)
					}
				}
				if got, want := again.wake(), x.wake(); got != want {
					t.Fatalf("seed %d: read again it waits for %+v, before for %+v", seed, got, want)
				}
			}
		}
		if x.State.Ended() {
			ended++
		}
	}
	if ended < 10 {
		t.Errorf("%d executions of 300 have ended: the inputs do not get far", ended)
	}
}
