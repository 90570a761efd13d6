package flow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// engineRun runs an engine until stop is called.
func engineRun(t *testing.T, store flow.Store) (engine *flow.Engine, stop func()) {
	t.Helper()
	tools := flow.NewTools()
	flow.Func(tools, "echo", func(_ context.Context, in struct {
		Text string `json:"text"`
	}) (struct {
		Text string `json:"text"`
	}, error) {
		if in.Text == "fail" {
			return struct {
				Text string `json:"text"`
			}{}, &flow.Error{Code: "asked", Message: "to fail", Permanent: true}
		}
		return in, nil
	}, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	return engine, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// wakes waits until the execution's wake is of a kind.
func wakes(t *testing.T, engine *flow.Engine, id string, kind flow.WakeKind) flow.Execution {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, err := range engine.Watch(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
		x, err := engine.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if x.Wake.Kind == kind {
			return x
		}
	}
	x, err := engine.Get(t.Context(), id)
	t.Fatalf("%s does not come to wait for a %s, but for %+v; it is %s, %v", id, kind, x.Wake, x.State, err)
	return flow.Execution{}
}

const orderFlow = `
flow: order
params: {what: string}
output: {said: "${steps.called.text}", paid: "${has(steps.pay) ? steps.pay.payload.sum : 0}", by: "${steps.ask.by}"}
steps:
  - name: both
    branches:
      money:
        - {name: pay, signal: "paid-${params.what}", timeout: 1h, on_failure: skip}
      goods:
        - {name: called, flow: say@1, with: {text: "${params.what}"}}
        - {name: nap, sleep: 10ms}
  - {name: ask, approve: {text: "deliver ${params.what}?", by: ["role:clerk"]}}
  - name: bad
    tool: echo
    with: {text: fail}
    on_failure: {steps: [{name: mend, tool: echo, with: {text: "${failure.code}"}}]}
  - name: choice
    if: "has(steps.pay) && steps.pay.payload.sum > 10"
    then: [{name: dear, tool: echo, with: {text: dear}}]
    else: [{name: cheap, tool: echo, with: {text: cheap}}]
`

// Branches, waits, choices, handlers and sub-flows over every store, through restarts: what is waited for is taken up where it was.
func TestStructuredFlow(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		engine, stop := engineRun(t, store)
		save(t, engine, "flow: say\nparams: {text: string}\noutput: {text: \"${'say ' + steps.s.text}\"}\nsteps: [{name: s, tool: echo, with: {text: \"${params.text}\"}}]")
		save(t, engine, "flow: say\nparams: {text: string}\noutput: {text: \"another version\"}\nsteps: [{name: s, tool: echo, with: {text: \"${params.text}\"}}]")
		save(t, engine, orderFlow)
		id, err := engine.Start(ctx, "order", map[string]any{"what": "tea"})
		if err != nil {
			t.Fatal(err)
		}
		x := wakes(t, engine, id, flow.WakeSignal)
		if x.Wake.For != "paid-tea" || x.Wake.At.IsZero() || x.State != flow.Running {
			t.Errorf("it waits for %+v", x.Wake)
		}
		stop()
		if found, err := flow.Check(ctx, store); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}

		// What is told twice is heard once.
		engine, stop = engineRun(t, store)
		defer func() { stop() }()
		for range 2 {
			if err := engine.Signal(ctx, id, "paid-tea", json.RawMessage(`{"sum": 12}`), flow.SignalID("7"), flow.SignalFrom("bank")); err != nil {
				t.Fatal(err)
			}
		}
		x = wakes(t, engine, id, flow.WakePerson)
		if diff := cmp.Diff("step ask: deliver tea?", x.Wake.For); diff != "" {
			t.Error(diff)
		}
		if err := engine.Approve(ctx, id, flow.Intervention{Step: "ask", Actor: "ann"}); !errors.Is(err, flow.ErrNotAsked) {
			t.Errorf("ann approves: %v, want ErrNotAsked", err)
		}
		events, err := engine.RehearseOrder(ctx, id, flow.OrderApprove, flow.Intervention{Step: "ask", Actor: "bob", Roles: []string{"clerk"}})
		if err != nil || len(events) < 2 || events[0].Kind != flow.EventApproved {
			t.Errorf("rehearsed: %v, %v", events, err)
		}
		stop()
		engine, stop = engineRun(t, store)
		if err := engine.Approve(ctx, id, flow.Intervention{Step: "ask", Actor: "bob", Roles: []string{"clerk"}}); err != nil {
			t.Fatal(err)
		}
		x, err = engine.Wait(ctx, id)
		if err != nil || x.State != flow.Done {
			t.Fatal(x.State, x.Error, err)
		}
		if diff := cmp.Diff(`{"by":["bob"],"paid":12,"said":"say tea"}`, string(x.Output)); diff != "" {
			t.Error(diff)
		}
		states := ""
		for _, s := range x.Steps {
			states += fmt.Sprintf("%s %s%s\n", s.Name, s.State, map[bool]string{true: " " + s.Case}[s.Case != ""])
		}
		want := "both done\npay done\ncalled done\nnap done\nask done\nbad skipped\nmend done\nchoice done then\ndear done\ncheap waiting\n"
		if diff := cmp.Diff(want, states); diff != "" {
			t.Error(diff)
		}
		if err := engine.Signal(ctx, id, "paid-tea", nil); !errors.Is(err, flow.ErrState) {
			t.Errorf("a signal after the end: %v, want ErrState", err)
		}
		if found, err := flow.Check(ctx, store); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
	})
}

// An execution moves to another version of its flow while it waits, on every store, and no step that it has come through runs again.
func TestMigrate(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		engine, stop := engineRun(t, store)
		save(t, engine, "flow: move\nsteps:\n  - {name: a, tool: echo, with: {text: one}}\n  - {name: w, signal: go}\n  - {name: b, tool: echo, with: {text: old}}")
		id, err := engine.Start(ctx, "move", nil)
		if err != nil {
			t.Fatal(err)
		}
		wakes(t, engine, id, flow.WakeSignal)
		save(t, engine, "flow: move\nparams: {n: {type: int, default: 2}}\noutput: {of: \"${steps.c.text}\"}\nsteps:\n  - {name: a, tool: echo, with: {text: other}}\n  - {name: w, signal: go}\n  - {name: c, tool: echo, with: {text: \"${steps.a.text + string(params.n)}\"}}")
		save(t, engine, "flow: move\nsteps:\n  - {name: b, tool: echo, with: {text: one}}\n  - {name: w, signal: go}")
		if err := engine.Migrate(ctx, id, flow.Intervention{Version: 3, Actor: "ann", Reason: "test"}); !errors.Is(err, flow.ErrState) {
			t.Errorf("to a version without what is done: %v, want ErrState", err)
		}
		if err := engine.Migrate(ctx, id, flow.Intervention{Version: 9, Actor: "ann", Reason: "test"}); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("to a version that is not there: %v, want ErrNotFound", err)
		}
		if err := engine.Migrate(ctx, id, flow.Intervention{Version: 2, Actor: "ann", Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		stop()
		engine, stop = engineRun(t, store)
		defer func() { stop() }()
		if err := engine.Signal(ctx, id, "go", nil); err != nil {
			t.Fatal(err)
		}
		x, err := engine.Wait(ctx, id)
		if err != nil || x.State != flow.Done || x.Version != 2 || string(x.Output) != `{"of":"one2"}` {
			t.Errorf("%s, version %d, output %s, %v, %v", x.State, x.Version, x.Output, x.Error, err)
		}
		rows, _, err := engine.List(ctx, flow.Filter{Flow: "move"})
		if err != nil || len(rows) != 1 || rows[0].Version != 2 {
			t.Errorf("listed: %+v, %v", rows, err)
		}
		if found, err := flow.Check(ctx, store); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
	})
}

// What waits for a person is not hidden by another branch that waits for a signal or for a time.
func TestAPersonIsSeenBesideOtherBranches(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "broken", Command: []string{"/bin/false"}})
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, `{flow: f, steps: [{name: br, branches: {a: [{name: h, tool: broken, on_failure: pause}], b: [{name: s, signal: go}], c: [{name: ask, approve: {text: "sure?"}}], d: [{name: sl, sleep: 30h}]}}]}`)
	id := begin(t, engine, "f", nil)
	for _, want := range []struct {
		text string
		kind flow.WakeKind
		act  func() error
	}{
		{"step h", flow.WakePerson, func() error { return engine.Settle(t.Context(), id, flow.Intervention{Step: "h", Done: true}) }},
		{"step ask: sure?", flow.WakePerson, func() error { return engine.Approve(t.Context(), id, flow.Intervention{Step: "ask", Actor: "ann"}) }},
		{"step sl", flow.WakeTimer, func() error { return engine.Skip(t.Context(), id, flow.Intervention{Step: "sl"}) }},
		{"go", flow.WakeSignal, func() error { return engine.Signal(t.Context(), id, "go", nil) }},
	} {
		x := wakes(t, engine, id, want.kind)
		if !strings.HasPrefix(x.Wake.For, want.text) || x.Wake.At.IsZero() != (want.kind == flow.WakeSignal) {
			t.Errorf("it waits for %+v, want %s", x.Wake, want.text)
		}
		if err := want.act(); err != nil {
			t.Fatal(err)
		}
	}
	if x, _ := finish(t, engine, id); x.State != flow.Done {
		t.Errorf("%s: %v", x.State, x.Error)
	}
}
