package flow_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// A key belongs to one start: repeated with the same parameters it finds the first execution, with others it is refused, whatever became of the
// flow meanwhile, and no value is told.
func TestAKeyBelongsToOneStart(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "work", Effect: flow.Keyed})
		save := func(params string) {
			t.Helper()
			if _, err := w.Engine.Save(w.Context(), []byte("flow: grow\nparams: {"+params+"}\nsteps: [{name: a, tool: work}]\n")); err != nil {
				w.Fatal(err)
			}
		}
		save(`count: {type: int, default: 1}, token: secret, devices: list<string>`)
		given := map[string]any{"token": "sesame", "devices": []string{"d1"}}
		first, err := w.Engine.Start(w.Context(), "grow", given, flow.Key("k"))
		if err != nil {
			w.Fatal(err)
		}
		for name, test := range map[string]struct {
			params map[string]any
			differ []string
		}{
			"the same":                 {params: given},
			"the default, written out": {params: map[string]any{"token": "sesame", "devices": []any{"d1"}, "count": 1.0}},
			"two others":               {params: map[string]any{"token": "sesame", "devices": []string{"d2"}, "count": 2}, differ: []string{"count", "devices"}},
			"another secret":           {params: map[string]any{"token": "a guess", "devices": []string{"d1"}}},
			"one that is unknown":      {params: map[string]any{"token": "sesame", "devices": []string{"d1"}, "size": 1}, differ: []string{"size"}},
		} {
			check := func(when string) {
				t.Helper()
				id, err := w.Engine.Start(w.Context(), "grow", test.params, flow.Key("k"))
				rehearsal, rehearsed := w.Engine.RehearseStart(w.Context(), "grow", test.params, flow.Key("k"))
				if test.differ == nil {
					if err != nil || id != first {
						t.Errorf("%s, %s: %s, %v; want %s", name, when, id, err, first)
					}
					if rehearsed != nil || rehearsal.Running != first || len(rehearsal.Steps) > 0 {
						t.Errorf("%s, %s: rehearsed: %+v, %v", name, when, rehearsal, rehearsed)
					}
					return
				}
				for _, err := range []error{err, rehearsed} {
					var exists *flow.ExistsError
					if !errors.As(err, &exists) || !errors.Is(err, flow.ErrExists) {
						t.Errorf("%s, %s: %v, want an ExistsError", name, when, err)
						continue
					}
					if diff := cmp.Diff(flow.ExistsError{Flow: "grow", Key: "k", Execution: first, Differ: test.differ}, *exists); diff != "" {
						t.Errorf("%s, %s (-want +got):\n%s", name, when, diff)
					}
					if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "other:") {
						t.Errorf("%s, %s: it tells a value: %v", name, when, err)
					}
				}
			}
			check("while it runs")
		}
		if x := w.End(first); x.State != flow.Done {
			w.Fatal(x.State)
		}
		save(`count: {type: int, default: 7}, token: secret, devices: list<string>, more: bool`)
		if id, err := w.Engine.Start(w.Context(), "grow", given, flow.Key("k")); err != nil || id != first {
			t.Errorf("with a new default: %s, %v; want %s", id, err, first)
		}
		if id, err := w.Engine.Start(w.Context(), "grow", given, flow.Key("another")); err != nil || id == first {
			t.Errorf("with another key: %s, %v", id, err)
		}
	})
}
