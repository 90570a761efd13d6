package flowtest_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// A test of a flow with fake tools: hours of retries pass at once, and the test sees what each tool was asked.
func TestAnInstallationIsTriedAgainAndThenUndone(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "device.acquire", Effect: flow.Keyed, Undo: "device.release"}, flowtest.Returns(`{"device": "d1"}`))
		release := w.Fake(flow.Manifest{Name: "device.release", Effect: flow.Keyed})
		install := w.Fake(flow.Manifest{Name: "package.install", Effect: flow.Keyed, OnDevice: true},
			flowtest.Fails("exit", "disk full"), flowtest.After(time.Hour, flowtest.Vanishes()), flowtest.FailsForGood("digest", "does not match"))
		began := time.Now()
		x := w.End(w.Start(`
flow: f
steps:
  - {name: acquire, tool: device.acquire}
  - {name: install, tool: package.install, on: "${steps.acquire.device}", retry: {attempts: 5, backoff: 2h, max: 10h}, timeout: 2h}
`, nil))
		if x.State != flow.Failed || x.Error.Code != "digest" {
			w.Errorf("it is %s: %v", x.State, x.Error)
		}
		if took := time.Since(began); took != 2*time.Hour+time.Hour+4*time.Hour {
			w.Errorf("it took %s", took)
		}
		if calls := install.Calls(); len(calls) != 3 || calls[2].Device != "d1" || calls[0].Key != calls[2].Key {
			w.Errorf("installed by %+v", calls)
		}
		if calls := release.Calls(); len(calls) != 1 || !strings.Contains(string(calls[0].Input), `"done":{"device":"d1"}`) {
			w.Errorf("released by %+v", calls)
		}
		if notices := w.Notices(); len(notices) != 1 || notices[0].Kind != "failed" {
			w.Errorf("notices: %+v", notices)
		}
		if got := flowtest.Output(x, "acquire")["device"]; got != "d1" {
			w.Errorf("the output is %v", got)
		}
	})
}

func TestWorldTellsWhatAnExecutionWaitsFor(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "deploy"}, flowtest.FailsForGood("bad", "no"))
		id := w.Start("flow: f\nsteps: [{name: one, tool: deploy, on_failure: pause}]\n", nil)
		if e := w.Until(id, flow.EventStuck); !strings.Contains(e.Reason, "bad: no") {
			w.Errorf("stuck for %q", e.Reason)
		}
		if x := w.Get(id); x.State != flow.Stuck {
			w.Errorf("it is %s", x.State)
		}
	})
}

// A change is tried on what has happened: the recorded night is run again with the changed flow, and what would have been different is named by step.
// Replay fails the test for each of these; Differences returns them.
func TestAChangeIsTriedOnTheNightThatWas(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/expand.json")
	if err != nil {
		t.Fatal(err)
	}
	night, err := flow.ReadExport(data)
	if err != nil {
		t.Fatal(err)
	}
	hasty := strings.Replace(night.Documents[0].Source, "attempts: 3", "attempts: 1", 1)
	var got []string
	for _, d := range flowtest.Differences(t, night, flowtest.WithDocument(hasty)) {
		switch d.Where { // of what follows from it, some
		case "state", "error", "step acquire undo", "step install state", "step install item 1 error":
			got = append(got, d.String())
		}
	}
	want := []string{
		"state: recorded: done; replayed: failed",
		"error: recorded: none; replayed: exit",
		"step acquire undo: recorded: none; replayed: done",
		"step install state: recorded: done; replayed: failed",
		"step install item 1 error: recorded: none; replayed: exit",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what a single attempt would change (-want +got):\n%s", diff)
	}
	if left := flowtest.Differences(t, night, flowtest.WithDocument(hasty), flowtest.Allow("state", "error", "step", "person")); len(left) > 0 {
		t.Errorf("what was allowed is told: %v", left)
	}
}
