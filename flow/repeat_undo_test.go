package flow_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// Every iteration of a repeated step is undone, the newest first, each with its own output and number: by the tool's own undo, by one that the
// step gives, and as a sub-flow; wherever the execution is turned back.
func TestEveryIterationIsUndone(t *testing.T) {
	t.Parallel()
	const grow = "\nsteps:\n  - name: grow\n    repeat: {until: \"index == 2\", max: 3}\n"
	for name, test := range map[string]struct {
		documents []string
		stopAt    int // the call of the step that never ends; 0: it is the step behind
		want      []string
	}{
		"its tool's own": {
			documents: []string{"flow: f" + grow + "    tool: buy\n  - {name: wait, signal: go}\n"},
			want:      []string{`{"done":{"id":3}}`, `{"done":{"id":2}}`, `{"done":{"id":1}}`},
		},
		"with its own output": {
			documents: []string{"flow: f" + grow + "    tool: buy\n    undo: {tool: sell, with: {what: \"${steps.grow.id}\", number: \"${index}\"}}\n  - {name: wait, signal: go}\n"},
			want:      []string{`{"done":{"id":3},"number":2,"what":3}`, `{"done":{"id":2},"number":1,"what":2}`, `{"done":{"id":1},"number":0,"what":1}`},
		},
		"with its mapped output, in the middle": {
			documents: []string{"flow: f" + grow + "    tool: buy\n    output: {name: \"n${output.id}\"}\n" +
				"    undo: {tool: sell, with: {what: \"${has(steps.grow) ? steps.grow.name : 'nothing'}\"}}\n"},
			stopAt: 3,
			want:   []string{`{"what":"nothing"}`, `{"done":{"id":2},"what":"n2"}`, `{"done":{"id":1},"what":"n1"}`},
		},
		"a sub-flow": {
			documents: []string{"flow: one\nsteps: [{name: a, tool: buy}]\n", "flow: f" + grow + "    flow: one\n  - {name: wait, signal: go}\n"},
			want:      []string{`{"done":{"id":3}}`, `{"done":{"id":2}}`, `{"done":{"id":1}}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flowtest.Run(t, func(w *flowtest.World) {
				outcomes := []flowtest.Outcome{flowtest.Returns(`{"id":1}`), flowtest.Returns(`{"id":2}`), flowtest.Returns(`{"id":3}`)}
				if test.stopAt > 0 {
					outcomes[test.stopAt-1] = flowtest.After(24*time.Hour, outcomes[test.stopAt-1])
				}
				w.Fake(flow.Manifest{Name: "buy", Effect: flow.Keyed, Undo: "sell", Output: []byte(`{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}`)}, outcomes...)
				sell := w.Fake(flow.Manifest{Name: "sell", Effect: flow.Keyed})
				last := len(test.documents) - 1
				for _, document := range test.documents[:last] {
					if _, err := w.Engine.Save(w.Context(), []byte(document)); err != nil {
						w.Fatal(err)
					}
				}
				id := w.Start(test.documents[last], nil)
				time.Sleep(time.Minute)
				if err := w.Engine.Cancel(w.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
					w.Fatal(err)
				}
				if x := w.End(id); x.State != flow.Cancelled {
					w.Fatalf("it is %s: %v", x.State, x.Error)
				}
				var got, keys []string
				for _, call := range sell.Calls() {
					got, keys = append(got, string(call.Input)), append(keys, call.Key)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					w.Errorf("undone (-want +got):\n%s", diff)
				}
				slices.Sort(keys)
				if len(slices.Compact(keys)) != 3 {
					w.Errorf("undone under the keys %v, want three", keys)
				}
			})
		})
	}
}
