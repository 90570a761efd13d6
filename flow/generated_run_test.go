package flow_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

// signals lists what the steps of a flow wait for, with these parameters.
func signals(steps []flow.Step, values *strings.Replacer) []string {
	var out []string
	for i := range steps {
		s := &steps[i]
		if s.Signal != "" {
			out = append(out, values.Replace(s.Signal))
		}
		held := [][]flow.Step{s.Then, s.Else, s.Handler}
		for _, c := range s.Switch {
			held = append(held, c.Steps)
		}
		for _, b := range s.Branches {
			held = append(held, b.Steps)
		}
		for _, inner := range held {
			out = append(out, signals(inner, values)...)
		}
	}
	return out
}

// What is taken runs: a generated definition comes to its end, with every expression worked out, once it gets the signals and approvals that it
// waits for.
func TestGeneratedFlowsRun(t *testing.T) {
	t.Parallel()
	ended := map[flow.StepState]int{}
	for seed := range uint64(60) {
		d := defgen.Running(seed)
		document, err := flow.Build(d)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			tools := flow.NewTools()
			flow.Func(tools, "make", func(_ context.Context, in defgen.In) (defgen.Out, error) {
				return defgen.Out{Text: in.Text, N: in.N % 10, OK: true, List: append(in.List, "more")}, nil
			}, flow.WithEffect(flow.Keyed), flow.WithUndo("unmake"))
			flow.Func(tools, "unmake", func(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil })
			engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
			save(t, engine, defgen.Called)
			save(t, engine, string(document))
			id, err := engine.Start(t.Context(), d.Name, map[string]any{"p0": "no", "p1": 5, "p2": true, "p3": []any{"x", "y"}}, flow.By("ann"))
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, document)
			}
			for _, name := range signals(d.Steps, strings.NewReplacer("${params.p0}", "no", "${params.p1}", "5")) {
				if err := engine.Signal(t.Context(), id, name, []byte(`{"n": 1}`), flow.SignalFrom("ann")); err != nil {
					break // it has ended already
				}
			}
			for range 24 * 60 { // hours
				synctest.Wait()
				x, err := engine.Get(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if x.State.Ended() {
					if x.State != flow.Done {
						t.Errorf("seed %d is %s: %v\n%s", seed, x.State, x.Error, document)
					}
					for _, s := range x.Steps {
						ended[s.State]++
					}
					return
				}
				for _, s := range x.Steps {
					for _, who := range []string{"ann", "bob"} {
						if s.State == flow.StepRunning {
							_ = engine.Approve(t.Context(), id, flow.Intervention{Step: s.Name, Actor: who, Reason: "why not"}) // most wait for nothing
						}
					}
				}
				time.Sleep(time.Hour) // of the test's clock
			}
			x, _ := engine.Get(t.Context(), id)
			t.Errorf("seed %d waits for %q in step %s\n%s", seed, x.Waiting, x.Step, document)
		})
	}
	if ended[flow.StepDone] < 300 {
		t.Errorf("only %d steps ran: %v", ended[flow.StepDone], ended)
	}
	t.Logf("steps by their state in the end: %v", ended)
}
