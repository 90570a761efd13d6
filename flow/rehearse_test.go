package flow_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

const rehearsed = `flow: greet
params:
  name: {type: string, required: true}
  count: {type: int, default: 2}
  password: {type: secret}
steps:
  - {name: first, stage: apply, tool: test.greet, with: {name: "${params.name}"}}
  - {name: second, stage: apply, tool: test.greet, when: "params.count > 1", with: {name: again}}
`

// A rehearsal makes the checks of a start and says what would begin; nothing begins.
func TestRehearsals(t *testing.T) {
	t.Parallel()
	type in struct {
		Name string `json:"name"`
	}
	tools := flow.NewTools()
	flow.Func(tools, "test.greet", func(_ context.Context, in in) (struct{}, error) { return struct{}{}, nil })
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools}) // not running: what is started waits
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if d, fresh, err := engine.RehearseSave(ctx, []byte(rehearsed)); err != nil || !fresh || d.Version != 1 {
		t.Errorf("a new flow: version %d, fresh %v, %v", d.Version, fresh, err)
	}
	if _, err := engine.RehearseStart(ctx, "greet", nil); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("a flow that was only rehearsed: %v", err)
	}
	if _, err := engine.Save(ctx, []byte(rehearsed)); err != nil {
		t.Fatal(err)
	}
	if d, fresh, err := engine.RehearseSave(ctx, []byte(rehearsed)); err != nil || fresh || d.Version != 1 {
		t.Errorf("the same flow: version %d, fresh %v, %v", d.Version, fresh, err)
	}
	if d, fresh, err := engine.RehearseSave(ctx, []byte(rehearsed+"  - {name: third, stage: apply, tool: test.greet, with: {name: x}}\n")); err != nil || !fresh || d.Version != 2 {
		t.Errorf("a longer flow: version %d, fresh %v, %v", d.Version, fresh, err)
	}
	if _, _, err := engine.RehearseSave(ctx, []byte(strings.ReplaceAll(rehearsed, "test.greet", "test.nosuch"))); !errors.Is(err, flow.ErrInvalid) {
		t.Errorf("a flow with a fault: %v", err)
	}
	if _, err := engine.RehearseStart(ctx, "greet", nil); !errors.Is(err, flow.ErrInvalid) {
		t.Errorf("a start without a required parameter: %v", err)
	}
	r, err := engine.RehearseStart(ctx, "greet", map[string]any{"name": "ann", "password": "hunter2"}, flow.Key("k"))
	if err != nil || r.Params["name"] != "ann" || r.Params["count"] == nil || r.Params["password"] == "hunter2" || len(r.Steps) != 2 || r.Version != 1 {
		t.Errorf("a start: %+v, %v", r, err)
	}
	if all, _, err := engine.List(ctx, flow.Filter{}); err != nil || len(all) != 0 {
		t.Errorf("%d executions after rehearsals, %v", len(all), err)
	}
	id, err := engine.Start(ctx, "greet", map[string]any{"name": "ann"}, flow.Key("k"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := engine.RehearseStart(ctx, "greet", map[string]any{"name": "ann"}, flow.Key("k")); err != nil || r.Running != id {
		t.Errorf("a start under a key that is taken: %+v, %v", r, err)
	}
	before, err := engine.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	for order, want := range map[string]flow.EventKind{flow.OrderPause: flow.EventPaused, flow.OrderCancel: flow.EventCancelled, flow.OrderResume: ""} {
		events, err := engine.RehearseOrder(ctx, id, order, flow.Intervention{Actor: "ann", Reason: "late"})
		found := want == ""
		for _, e := range events {
			found = found || e.Kind == want
		}
		if err != nil || !found {
			t.Errorf("%s: %+v, %v; want %q", order, events, err, want)
		}
	}
	for _, order := range []string{flow.OrderRetry, "dance"} {
		if _, err := engine.RehearseOrder(ctx, id, order, flow.Intervention{Actor: "ann"}); err == nil {
			t.Errorf("%s of an execution that waits for nobody was rehearsed", order)
		}
	}
	if after, err := engine.Get(ctx, id); err != nil || after.Seq != before.Seq || after.State != before.State {
		t.Errorf("rehearsals changed the execution: %+v, %v", after, err)
	}
}
