package flowtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

const expand = `
flow: expand
params:
  module: {type: string, required: true}
  count: {type: int, default: 2}
  password: secret
steps:
  - {name: acquire, tool: device.acquire, with: {count: "${params.count}", key: "${execution.id}"}}
  - name: install
    tool: package.install
    each: "${steps.acquire.devices}"
    parallel: 2
    on: "${item}"
    with: {module: "${params.module}", password: "${params.password}"}
    retry: {attempts: 3, backoff: 1h}
  - {name: check, tool: check, with: {at: 1}, on_failure: pause}
  - {name: join, flow: join, with: {devices: "${steps.acquire.devices}"}}
`

const join = `
flow: join
params: {devices: list<string>}
steps:
  - {name: each_one, tool: join, each: "${params.devices}", with: {device: "${item}"}}
`

var manifests = []flow.Manifest{
	{Name: "device.acquire", Effect: flow.Keyed, Undo: "device.release", Output: json.RawMessage(`{"type":"object","properties":{"devices":{"type":"array","items":{"type":"string"}}},"required":["devices"]}`)},
	{Name: "device.release", Effect: flow.Keyed},
	{Name: "package.install", Effect: flow.Probe, Probe: "package.probe", OnDevice: true},
	{Name: "package.probe", Effect: flow.Pure},
	{Name: "check", Effect: flow.Manual},
	{Name: "join", Effect: flow.Keyed},
}

const secret = "hunter2-\"quoted\""

// record runs expand with failures of all kinds and people who mend them, and returns its export.
func record(t *testing.T) flow.Export {
	t.Helper()
	var out flow.Export
	flowtest.Run(t, func(w *flowtest.World) {
		outcomes := map[string][]flowtest.Outcome{
			"device.acquire":  {flowtest.After(time.Minute, flowtest.Returns(`{"devices":["d1","d2","d3"]}`))},
			"package.install": {flowtest.After(time.Second, flowtest.Fails("exit", "no "+secret)), flowtest.Returns(`{}`), flowtest.Vanishes(), flowtest.After(time.Hour, flowtest.Returns(`{"of":"`+`x"}`))},
			"package.probe":   {flowtest.Fails("exit", "not yet"), flowtest.Returns(`{"done":true,"output":{"found":1}}`)},
			"check":           {flowtest.Fails("bad", "no"), flowtest.Vanishes(), flowtest.FailsForGood("worse", "never")},
		}
		for _, m := range manifests {
			w.Fake(m, outcomes[m.Name]...)
		}
		if _, err := w.Engine.Save(t.Context(), []byte(join)); err != nil {
			w.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		id := w.Start(expand, map[string]any{"module": "shop.cart", "count": 3, "password": secret}, flow.By("ann"), flow.Key("k"))
		w.Until(id, flow.EventStuck)
		order := func(verb string, i flow.Intervention) {
			t.Helper()
			i.Actor = "bob"
			time.Sleep(time.Minute)
			if err := w.Engine.Order(w.Context(), id, verb, i); err != nil {
				w.Fatal(verb, err)
			}
			w.Get(id)
		}
		order(flow.OrderRetryStep, flow.Intervention{Step: "check", Input: json.RawMessage(`{"at":2}`)})
		order(flow.OrderRetry, flow.Intervention{})
		order(flow.OrderPause, flow.Intervention{})
		order(flow.OrderSettle, flow.Intervention{Step: "check", Done: true, Output: json.RawMessage(`{"by":"hand"}`)})
		order(flow.OrderResume, flow.Intervention{})
		if x := w.End(id); x.State != flow.Done {
			w.Fatalf("it is %s: %v", x.State, x.Error)
		}
		var err error
		if out, err = w.Engine.Export(t.Context(), id); err != nil {
			w.Fatal(err)
		}
	})
	return out
}

// read brings an export through its file's form.
func read(t *testing.T, export flow.Export) flow.Export {
	t.Helper()
	data, err := json.Marshal(export)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, "hunter2") || !strings.Contains(text, "no ******") {
		t.Errorf("the export shows the secret, or nothing in its place")
	}
	out, err := flow.ReadExport(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What was recorded, replayed as it was, comes out the same: attempts, probes, people and sub-flows.
func TestReplayOfTheSameIsTheSame(t *testing.T) {
	t.Parallel()
	export := read(t, record(t))
	if len(export.Subflows) != 1 || len(export.Documents) != 2 || len(export.Tools) != len(manifests) {
		t.Fatalf("%d sub-flows, %d documents, %d tools", len(export.Subflows), len(export.Documents), len(export.Tools))
	}
	for _, d := range flowtest.Differences(t, export) {
		t.Error(d)
	}
}

// A changed document is told apart where it matters.
func TestReplayOfAChangedDocument(t *testing.T) {
	t.Parallel()
	export := read(t, record(t))
	for name, test := range map[string]struct {
		old, new string
		want     []string
	}{
		"title only":   {"flow: expand", "flow: expand\ntitle: another", nil},
		"input":        {"with: {at: 1}", "with: {at: 7}", []string{}}, // a person gave another input, and that stands
		"gone":         {`  - {name: check, tool: check, with: {at: 1}, on_failure: pause}` + "\n", "", []string{"step check: recorded: it is done; replayed: it is gone", "person: "}},
		"other input":  {`module: "${params.module}", pass`, `module: "${params.module}!", pass`, []string{`step install item 0 input: recorded: {"module":"shop.cart","password":"******"}; replayed: {"module":"shop.cart!","password":"******"}`}},
		"new step":     {"  - name: install", "  - {name: extra, tool: check}\n  - name: install", []string{"step extra: recorded: nothing is recorded for this call", "state: recorded: done; replayed: failed"}},
		"fewer tries":  {"attempts: 3", "attempts: 1", []string{"state: recorded: done; replayed: failed", "step install state: recorded: done; replayed: failed", "step acquire undo: recorded: none; replayed: done"}},
		"sub-flow arg": {`{devices: "${steps.acquire.devices}"}`, `{devices: ["d1"]}`, []string{"step join input", "step join: step each_one items: recorded: 3; replayed: 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			document := strings.Replace(expand, test.old, test.new, 1)
			if document == expand {
				t.Fatal("the change changes nothing")
			}
			var got []string
			for _, d := range flowtest.Differences(t, export, flowtest.WithDocument(document)) {
				got = append(got, d.String())
			}
			all := strings.Join(got, "\n")
			for _, want := range test.want {
				if !strings.Contains(all, want) {
					t.Errorf("no %q in:\n%s", want, all)
				}
			}
			if len(test.want) == 0 && all != "" {
				t.Errorf("differences:\n%s", all)
			}
		})
	}
	// A new step with a tool that answers is a difference that may be allowed.
	document := strings.Replace(expand, "  - name: install", "  - {name: extra, tool: new}\n  - name: install", 1)
	got := flowtest.Differences(t, export, flowtest.WithDocument(document), flowtest.WithTool(flow.Manifest{Name: "new"}, flowtest.Returns(`{}`)), flowtest.Allow("step extra"))
	if diff := cmp.Diff([]flowtest.Difference(nil), got); len(got) > 0 {
		t.Error(diff)
	}
}

// Waits are replayed: what people and programs said, when they said it, on the days on which it was.
func TestReplayOfWaits(t *testing.T) {
	t.Parallel()
	const document = `
flow: f
steps:
  - {name: nap, sleep: 36h}
  - {name: night, window: {days: [sun], from: "01:00", to: "05:00", zone: Asia/Shanghai}}
  - {name: loaded, signal: loaded, timeout: 200h}
  - {name: ask, approve: {text: "rows ${string(steps.loaded.payload.rows)}", by: [ann, "role:chief"], count: 2}, timeout: 2000h}
  - name: way
    if: steps.loaded.payload.rows > 5
    then: [{name: big, tool: work, with: {by: "${steps.ask.by}"}}]
    else: [{name: small, tool: work}]
`
	var export flow.Export
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "work", Effect: flow.Keyed}, flowtest.After(time.Minute, flowtest.Returns(`{"ok":true}`)))
		time.Sleep(100 * time.Hour)
		id := w.Start(document, nil)
		time.Sleep(time.Hour)
		for range 2 {
			if err := w.Engine.Signal(w.Context(), id, "loaded", json.RawMessage(`{"rows":7}`), flow.SignalID("s"), flow.SignalFrom("loader")); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(400 * time.Hour)
		for _, by := range []flow.Intervention{{Step: "ask", Actor: "ann"}, {Step: "ask", Actor: "bob", Roles: []string{"chief"}, Reason: "fine"}} {
			if err := w.Engine.Approve(w.Context(), id, by); err != nil {
				w.Fatal(err)
			}
		}
		if x := w.End(id); x.State != flow.Done {
			w.Fatalf("it is %s: %v", x.State, x.Error)
		}
		var err error
		if export, err = w.Engine.Export(t.Context(), id); err != nil {
			w.Fatal(err)
		}
	})
	export = reread(t, export)
	for _, d := range flowtest.Differences(t, export) {
		t.Error(d)
	}
	changed := strings.Replace(document, "> 5", "> 50", 1)
	var got []string
	for _, d := range flowtest.Differences(t, export, flowtest.WithDocument(changed), flowtest.WithTool(flow.Manifest{Name: "work", Effect: flow.Keyed}, flowtest.Returns("{}"))) {
		got = append(got, d.String())
	}
	if all := strings.Join(got, "\n"); !strings.Contains(all, "step big state: recorded: done") || !strings.Contains(all, "step small state") {
		t.Errorf("another way is taken, and the differences are:\n%s", all)
	}
}

// An execution that was moved to another version is replayed with both.
func TestReplayOfAMigration(t *testing.T) {
	t.Parallel()
	const document = "flow: f\nsteps: [{name: one, tool: work}, {name: two, tool: fail, on_failure: pause}, {name: three, tool: work}]\n"
	var export flow.Export
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "work", Effect: flow.Keyed}, flowtest.After(time.Minute, flowtest.Returns("{}")))
		w.Fake(flow.Manifest{Name: "fail", Effect: flow.Keyed}, flowtest.Fails("bad", "no"), flowtest.Returns("{}"))
		id := w.Start(document, nil)
		w.Until(id, flow.EventStuck)
		for _, name := range []string{"again", "more"} {
			if _, err := w.Engine.Save(w.Context(), []byte(strings.Replace(document, "three", name, 1))); err != nil {
				w.Fatal(err)
			}
		}
		if err := w.Engine.Migrate(w.Context(), id, flow.Intervention{Version: 2, Actor: "ann", Reason: "a better end"}); err != nil {
			w.Fatal(err)
		}
		if err := w.Engine.Retry(w.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
			w.Fatal(err)
		}
		if x := w.End(id); x.State != flow.Done || x.Version != 2 || len(x.Steps) != 3 || x.Steps[2].Name != "again" {
			w.Fatalf("it is %s of version %d: %v %v", x.State, x.Version, x.Error, x.Steps)
		}
		var err error
		if export, err = w.Engine.Export(t.Context(), id); err != nil {
			w.Fatal(err)
		}
	})
	export = reread(t, export)
	if len(export.Documents) != 2 {
		t.Errorf("%d documents", len(export.Documents))
	}
	for _, d := range flowtest.Differences(t, export) {
		t.Error(d)
	}
}

func reread(t *testing.T, export flow.Export) flow.Export {
	t.Helper()
	data, err := json.Marshal(export)
	if err != nil {
		t.Fatal(err)
	}
	out, err := flow.ReadExport(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// An execution that is open is replayed as far as it went; one that failed is replayed with its undos.
func TestReplayOfOpenAndFailed(t *testing.T) {
	t.Parallel()
	const document = `
flow: f
steps:
  - {name: one, tool: device.acquire}
  - {name: two, tool: check, timeout: 2000h}
`
	for name, outcome := range map[string]flowtest.Outcome{
		"open":   flowtest.After(1000*time.Hour, flowtest.Returns("{}")),
		"failed": flowtest.After(time.Hour, flowtest.FailsForGood("bad", "no")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var export flow.Export
			flowtest.Run(t, func(w *flowtest.World) {
				w.Fake(manifests[0], flowtest.Returns(`{"devices":[]}`))
				w.Fake(manifests[1])
				w.Fake(flow.Manifest{Name: "check", Effect: flow.Manual}, outcome)
				id := w.Start(document, nil)
				time.Sleep(2 * time.Hour)
				x := w.Get(id)
				if (x.State == flow.Failed) != (name == "failed") {
					w.Fatalf("it is %s", x.State)
				}
				var err error
				if export, err = w.Engine.Export(t.Context(), id); err != nil {
					w.Fatal(err)
				}
			})
			for _, d := range flowtest.Differences(t, export) {
				t.Error(d)
			}
		})
	}
}

// A file that is no export is refused with a reason.
func TestReadExportRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", "{}", `{"format":"zhiyun.flow.execution/99"}`, `{"format":"zhiyun.flow.execution/1"}`, `[]`} {
		if _, err := flow.ReadExport([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func FuzzReadExport(f *testing.F) {
	f.Add([]byte(`{"format":"zhiyun.flow.execution/1","documents":[{"flow":"f"}],"events":[{"kind":"execution.started","params":{"n":1}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		export, err := flow.ReadExport(data)
		if err == nil && len(export.Events) == 0 {
			t.Error("an export without a history")
		}
	})
}

// The file in testdata was written by an older program: exports stay readable.
func TestReplayOfAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "expand.json")
	if os.Getenv("ZHIYUN_RECORD") != "" {
		data, err := json.MarshalIndent(record(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Println("recorded", path)
	}
	flowtest.Replay(t, path)
}
