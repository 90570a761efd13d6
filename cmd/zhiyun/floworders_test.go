package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/records"
)

const askingFlow = "flow: ask\nparams: {module: string, password: secret}\nsteps: [{name: one, tool: reject, with: {n: -1}, on_failure: pause}]\n"

// asking starts executions that wait for a person, of the modules given.
func asking(t *testing.T, w *controltest.World, modules ...string) []string {
	t.Helper()
	if _, err := w.Flow.Save(t.Context(), []byte(askingFlow)); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, module := range modules {
		id, err := w.Flow.Start(t.Context(), "ask", map[string]any{"module": module, "password": "hunter2-geheim"}, flow.By("ann"))
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
		ids = append(ids, id)
	}
	return ids
}

// An operator finds executions by what they are about, and hits those and no others; a repetition changes nothing, and each that was hit is in the
// audit record with where it stood.
func TestOrdersInBulk(t *testing.T) {
	w := controltest.New(t)
	ids := asking(t, w, "shop.cart", "shop.web", "shop.cart")
	zhiyun := func(args string) (string, error) {
		t.Helper()
		out, err := run(t, append(strings.Fields(args), "--server", w.Target)...)
		return out, err
	}
	for args, want := range map[string]int{
		"flow list --module shop.cart --state stuck --since 2h": 2,
		"flow list --param module=shop.web":                     1,
		"flow list --text negative --waits person --by ann":     3,
		"flow list --device d7":                                 0,
		"flow list --until 2h":                                  0,
	} {
		out, err := zhiyun(args)
		if lines := strings.Count(out, " ask "); err != nil || lines != want {
			t.Errorf("%s: %d lines, %v, want %d\n%s", args, lines, err, want, out)
		}
	}
	out, err := zhiyun("flow cancel --all --module shop.cart --dry-run")
	if err != nil || strings.Count(out, "stuck at one -> cancelled") != 2 || strings.Contains(out, ids[1]) {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	for _, bad := range []string{"flow cancel --all", "flow cancel --all " + ids[0] + " --flow ask", "flow cancel --all --state open", "flow cancel --all --param module"} {
		if out, err := zhiyun(bad); err == nil {
			t.Errorf("%s was taken:\n%s", bad, out)
		}
	}
	for _, want := range []string{"2 done", "0 done"} {
		out, err = zhiyun("flow skip --all one --module shop.cart --reason known")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("skip: %v, want %s\n%s", err, want, out)
		}
	}
	for i, id := range ids {
		x, err := w.Flow.Get(t.Context(), id)
		if want := []flow.State{flow.Done, flow.Stuck}[i%2]; err != nil || x.State != want {
			t.Errorf("%d is %s, %v, want %s", i, x.State, err, want)
		}
	}
	log, err := w.Records.AuditLog(t.Context(), records.Query{})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, entry := range log {
		if entry.Action == "flow.skip" && strings.Contains(string(entry.Detail), `"before":{"version":1,"state":"stuck","step":"one"`) && strings.Contains(string(entry.Detail), `"after":{"version":1,"state":"done"`) {
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d skips are in the audit record with before and after: %+v", told, log)
	}
	asking(t, w, strings.Fields(strings.Repeat("m ", flow.DefaultBulk+1))...)
	if out, err := zhiyun("flow pause --all --module m"); err == nil || !strings.Contains(err.Error(), "more than 20") {
		t.Errorf("more than were allowed for: %v\n%s", err, out)
	}
	if out, err := zhiyun("flow pause --all --module m --yes"); err != nil || !strings.Contains(out, "21/21") {
		t.Errorf("allowed for: %v\n%s", err, out)
	}
}

// What an execution did is shown by step and time, followed, exported for a test, and removed once it is old.
func TestThePastOfAnExecution(t *testing.T) {
	w := controltest.New(t)
	id := asking(t, w, "shop.cart")[0]
	zhiyun := func(args string) string {
		t.Helper()
		out, err := run(t, append(strings.Fields(args), "--server", w.Target)...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		return out
	}
	if out := zhiyun("flow show " + id); !strings.Contains(out, "waits for: step one") || !strings.Contains(out, "since 20") {
		t.Errorf("show:\n%s", out)
	}
	zhiyun("flow cancel " + id)
	if out := zhiyun("flow show --timing " + id); !strings.Contains(out, "one ") || !strings.Contains(out, "ATTEMPTS") {
		t.Errorf("timing:\n%s", out)
	}
	zhiyun("flow logs " + id)
	file := filepath.Join(t.TempDir(), "night.json")
	exported := zhiyun("flow export " + id)
	if strings.Contains(exported, "hunter2") {
		t.Error("the export shows a secret")
	}
	if err := os.WriteFile(file, []byte(exported), 0o600); err != nil {
		t.Fatal(err)
	}
	flowtest.Replay(t, file)
	if out := zhiyun("flow prune"); strings.Contains(out, id) {
		t.Errorf("nothing is to be removed, and prune says:\n%s", out)
	}
	if out := zhiyun("flow prune --older-than 1ns --dry-run"); !strings.Contains(out, "- execution/"+id) {
		t.Errorf("prune --dry-run:\n%s", out)
	}
	if out := zhiyun("flow prune --older-than 1ns --flow ask -o json"); !json.Valid([]byte(out)) || !strings.Contains(out, id) {
		t.Errorf("prune:\n%s", out)
	}
	if _, err := run(t, "flow", "show", id, "--server", w.Target); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("show of what was removed: %v", err)
	}
	log, err := w.Records.AuditLog(t.Context(), records.Query{})
	if text := fmt.Sprintf("%+v", log); err != nil || !strings.Contains(text, "flow.prune") {
		t.Errorf("%v: %s", err, text)
	}
}

// An operator sees what an execution waits for, says what it waits for, and answers where people are asked. A tool or a device answers for nobody.
func TestSignalsAndApprovals(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte(`
flow: ask
steps:
  - {name: load, signal: loaded, timeout: 1h}
  - {name: sure, approve: {text: "load ${string(steps.load.payload.rows)} rows?"}}
`)); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flow.Start(t.Context(), "ask", nil)
	if err != nil {
		t.Fatal(err)
	}
	zhiyun := func(args ...string) string {
		t.Helper()
		out, err := run(t, append(args, "--server", w.Target)...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	if out := zhiyun("flow", "list", "--waits", "signal"); !strings.Contains(out, id) || !strings.Contains(out, "loaded") {
		t.Errorf("list:\n%s", out)
	}
	if out := zhiyun("flow", "show", id); !strings.Contains(out, "waits for: loaded, since ") || !strings.Contains(out, ", until ") {
		t.Errorf("show:\n%s", out)
	}
	if _, err := run(t, "flow", "signal", "--all", "loaded", "--flow", "ask", "--server", w.Target); err == nil || !strings.Contains(err.Error(), "ID is empty") {
		t.Errorf("a signal in bulk without an id: %v", err)
	}
	for _, want := range []string{"1 done", "1 unchanged"} {
		if out := zhiyun("flow", "signal", "--all", "loaded", "--flow", "ask", "--id", "night-1", "--payload", `{"rows": 7}`); !strings.Contains(out, want) {
			t.Errorf("signal: want %s\n%s", want, out)
		}
	}
	if out := zhiyun("flow", "list", "--waits", "person"); !strings.Contains(out, "load 7 rows?") {
		t.Errorf("list:\n%s", out)
	}
	request := connect.NewRequest(&controlpb.InterveneRequest{Id: id, Verb: flow.OrderApprove, Step: "sure", Cause: &controlpb.Cause{Actor: "agent:d1"}})
	request.Header().Set(controltest.AgentHeader, "d1")
	if _, err := w.Client.Flows.Intervene(t.Context(), request); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a device approves: %v", err)
	}
	if out := zhiyun("flow", "refuse", id, "sure", "--dry-run"); !strings.Contains(out, "step.refused") {
		t.Errorf("refuse --dry-run:\n%s", out)
	}
	zhiyun("flow", "approve", id, "sure", "--reason", "looks right")
	x, err := w.Flow.Wait(t.Context(), id)
	if err != nil || x.State != flow.Done {
		t.Errorf("it is %s: %v", x.State, err)
	}
	if out := zhiyun("audit"); !strings.Contains(out, "flow.approve") || !strings.Contains(out, "flow.signal") {
		t.Errorf("audit:\n%s", out)
	}
}
