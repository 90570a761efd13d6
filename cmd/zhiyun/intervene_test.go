package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

// A person steers an execution that waits: another input, back to the beginning, and a step that is skipped. Each is in the audit record.
func TestAPersonSteersAnExecution(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte(`
flow: f
steps:
  - {name: one, tool: echo, with: {n: 1}}
  - {name: two, tool: reject, with: {n: -1}, on_failure: pause}
  - {name: three, tool: echo, with: {n: "${steps.two.n}"}}
`)); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flow.Start(t.Context(), "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	stuck := func(times int) {
		t.Helper()
		for event, err := range w.Flow.Watch(t.Context(), id) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Kind == flow.EventStuck {
				if times--; times == 0 {
					return
				}
			}
		}
		t.Fatal("it ended")
	}
	zhiyun := func(args ...string) error {
		_, err := run(t, append(args, "--server", w.Target)...)
		return err
	}
	stuck(1)
	if err := zhiyun("flow", "skip", id, "one"); err == nil || !strings.Contains(err.Error(), `at step "two"`) {
		t.Errorf("skip of a step that is over: %v", err)
	}
	if err := zhiyun("flow", "retry-step", id, "two", "--input", `{"n": -2}`); err != nil {
		t.Fatal(err)
	}
	stuck(2)
	if err := zhiyun("flow", "back", id, "one", "--reason", "once more"); err != nil {
		t.Fatal(err)
	}
	stuck(3)
	if err := zhiyun("flow", "skip", id, "two", "--result", `{"n": 7}`); err != nil {
		t.Fatal(err)
	}
	x, err := w.Flow.Wait(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ N int }
	if err := json.Unmarshal(x.Steps[2].Output, &got); err != nil || x.State != flow.Done || got.N != 7 {
		t.Errorf("it is %s, and the last step has %+v: %v %v", x.State, got, x.Error, err)
	}
	out, err := run(t, "audit", "--server", w.Target)
	for _, act := range []string{"flow.retry-step", "flow.back", "flow.skip"} {
		if err != nil || !strings.Contains(out, act) {
			t.Errorf("the audit record has no %s: %v\n%s", act, err, out)
		}
	}
}

// Where an execution is paused, list and show say so, and show says how to go on.
func TestAPausedExecutionSaysSo(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte("flow: f\nsteps: [{name: one, tool: reject, with: {n: -1}, on_failure: pause}]\n")); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flow.Start(t.Context(), "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range w.Flow.Watch(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == flow.EventStuck {
			break
		}
	}
	if _, err := run(t, "flow", "pause", id, "--server", w.Target); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "flow", "show", id, "--server", w.Target)
	if err != nil || !strings.Contains(out, "paused: zhiyun flow resume "+id) {
		t.Errorf("show: %v\n%s", err, out)
	}
	out, err = run(t, "flow", "list", "--server", w.Target)
	if err != nil || !strings.Contains(out, "PAUSED") || !strings.Contains(out, "true") {
		t.Errorf("list: %v\n%s", err, out)
	}
}

// Only the start of an attempt says where it runs; who watches is told so of its end, too.
func TestWatchSaysWhereAnAttemptEnded(t *testing.T) {
	where := make(attemptDevices)
	for i, device := range []string{"d1", "d2"} {
		where.fill(&flow.Event{Kind: flow.EventAttemptStarted, Step: "install", Item: i, Device: device})
	}
	done := flow.Event{Kind: flow.EventAttemptDone, Step: "install", Item: 1}
	where.fill(&done)
	if !strings.Contains(eventLine(done), "d2") {
		t.Errorf("the line is %q", eventLine(done))
	}
	other := flow.Event{Kind: flow.EventStepDone, Step: "install"}
	if where.fill(&other); other.Device != "" {
		t.Errorf("a step ended on %q", other.Device)
	}
}

// What a step went on without is read from its output, if its tool says such a thing.
func TestShowSaysWhatAStepWentOnWithout(t *testing.T) {
	for output, want := range map[string]string{
		`{"rollouts": [], "lost": ["d2 is faulty: agent lost"]}`: "d2 is faulty: agent lost",
		`{"lost": 3}`: "", `{}`: "", ``: "",
	} {
		if got := strings.Join(lostOf(flow.StepStatus{Output: json.RawMessage(output)}), "; "); got != want {
			t.Errorf("of %s: %q, want %q", output, got, want)
		}
	}
}
