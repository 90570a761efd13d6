package flow_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// A step that is held stops nobody else, and nobody else hides it: people are told at once, though other branches wait for a signal and for
// hours; the execution is found as stuck, retried in bulk, and goes on by itself meanwhile.
func TestAHeldStepIsToldBesideBranchesThatWait(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "deploy", Effect: flow.Keyed}, flowtest.FailsForGood("disk", "full"), flowtest.Returns(`{}`))
		look := w.Fake(flow.Manifest{Name: "look", Effect: flow.Pure})
		id := w.Start(`
flow: f
steps:
  - name: par
    branches:
      one: [{name: deploy, tool: deploy, on_failure: pause}]
      two: [{name: hear, signal: go}, {name: look, tool: look}]
      three: [{name: nap, sleep: 8h}, {name: look2, tool: look}]
`, nil)
		time.Sleep(time.Minute)
		stuck := func() {
			t.Helper()
			found, _, err := w.Engine.List(w.Context(), flow.Filter{States: []flow.State{flow.Stuck}})
			if err != nil || len(found) != 1 || found[0].Wake.Kind != flow.WakePerson || !strings.Contains(found[0].Wake.For, "disk: full") {
				w.Errorf("stuck: %+v, %v", found, err)
			}
			if notices := w.Notices(); len(notices) != 1 || notices[0].Kind != "stuck" || notices[0].Severity != "critical" {
				w.Errorf("notices: %+v", notices)
			}
		}
		stuck()
		if err := w.Engine.Signal(w.Context(), id, "go", nil); err != nil {
			w.Fatal(err)
		}
		time.Sleep(9 * time.Hour) // it has left memory, and its alarm has brought it back
		if calls := look.Calls(); len(calls) != 2 {
			w.Errorf("the other branches have made the calls %+v", calls)
		}
		stuck()
		for line, err := range w.Engine.Bulk(w.Context(), flow.Bulk{
			Filter: flow.Filter{States: []flow.State{flow.Stuck}}, Order: flow.OrderRetry, With: flow.Intervention{Actor: "ann"},
		}) {
			if err != nil || line.Outcome != flow.BulkDone {
				w.Errorf("%+v, %v", line, err)
			}
		}
		if x := w.End(id); x.State != flow.Done {
			w.Errorf("it is %s: %v", x.State, x.Error)
		}
	})
}

// What an execution shows after its end is true: nothing of it runs, and it waits for nothing.
func TestWhatWasUnderWayIsStoppedAtTheEnd(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "work", Effect: flow.Keyed})
		w.Fake(flow.Manifest{Name: "slow", Effect: flow.Keyed}, flowtest.After(time.Hour, flowtest.Returns(`{}`)))
		id := w.Start(`
flow: f
steps:
  - name: par
    branches:
      one: [{name: ask, approve: {text: "sure?"}}]
      two: [{name: done, tool: work}, {name: slow, tool: slow}, {name: never, tool: work}]
      three: [{name: hear, signal: go}]
`, nil)
		time.Sleep(time.Minute)
		if err := w.Engine.Cancel(w.Context(), id, flow.Intervention{Actor: "ann", Reason: "not today"}); err != nil {
			w.Fatal(err)
		}
		x := w.End(id)
		states := map[string]flow.StepState{}
		for _, s := range x.Steps {
			states[s.Name] = s.State
			for _, task := range s.Tasks {
				if task.For != "" || task.Waits != "" || !task.RetryAt.IsZero() {
					w.Errorf("step %s still waits: %+v", s.Name, task)
				}
			}
			if s.State == flow.StepStopped && s.Ended.IsZero() {
				w.Errorf("step %s has stopped, and nobody knows when", s.Name)
			}
		}
		want := map[string]flow.StepState{
			"par": flow.StepStopped, "ask": flow.StepStopped, "done": flow.StepDone, "slow": flow.StepStopped, "never": flow.StepWaiting, "hear": flow.StepStopped,
		}
		if diff := cmp.Diff(want, states); diff != "" {
			w.Errorf("(-want +got):\n%s", diff)
		}
		if x.State != flow.Cancelled || x.Waiting != "" || x.Wake.Kind != flow.WakeNone {
			w.Errorf("it is %s, and waits for %q, %+v", x.State, x.Waiting, x.Wake)
		}
	})
}
