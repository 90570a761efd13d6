package flow_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// A flow that is called by name may be saved later: Lint warns, Plan and the rehearsal of a start say where it would fail, and there it does. One
// that is pinned to a version has to be there.
func TestAFlowThatIsNotThere(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		const outer = "flow: outer\nsteps:\n  - {name: call, flow: later}\n"
		faults, err := w.Engine.Lint(w.Context(), []byte(outer))
		want := []flow.Fault{{Line: 3, Column: 24, Path: "steps[0].flow", Message: `no flow is called "later": save it before this one is started`, Warning: true}}
		if diff := cmp.Diff(want, faults); err != nil || diff != "" {
			w.Errorf("lint: %v (-want +got):\n%s", err, diff)
		}
		if _, err := w.Engine.Save(w.Context(), []byte(outer)); err != nil {
			w.Fatal(err)
		}
		fails := func() (plan, rehearsal string) {
			t.Helper()
			planned, err := w.Engine.Plan(w.Context(), "outer", nil)
			rehearsed, errRehearsed := w.Engine.RehearseStart(w.Context(), "outer", nil)
			if err := errors.Join(err, errRehearsed); err != nil {
				w.Fatal(err)
			}
			return planned.Steps[0].Fails, rehearsed.Steps[0].Fails
		}
		if plan, rehearsal := fails(); plan != "there is no flow later; save it" || rehearsal != plan {
			w.Errorf("the plan says %q, the rehearsal %q", plan, rehearsal)
		}
		id, err := w.Engine.Start(w.Context(), "outer", nil)
		if err != nil {
			w.Fatal(err)
		}
		if x := w.End(id); x.State != flow.Failed || x.Error.Code != flow.CodeSubflow || !strings.Contains(x.Error.Message, `no flow is called "later"`) {
			w.Errorf("it is %s: %v", x.State, x.Error)
		}

		pinned := strings.Replace(outer, "later", `"later@2"`, 1)
		for range 2 {
			var broken *flow.DefinitionError
			if _, err := w.Engine.Save(w.Context(), []byte(pinned)); !errors.As(err, &broken) || broken.Faults[0].Line != 3 || broken.Faults[0].Warning {
				w.Errorf("pinned: %v", err)
			}
			if _, err := w.Engine.Save(w.Context(), []byte("flow: later\nsteps: [{name: say, notify: {text: hi}}]\n")); err != nil { // version 1
				w.Fatal(err)
			}
		}
		if plan, rehearsal := fails(); plan != "" || rehearsal != "" {
			w.Errorf("once it is there, the plan says %q, the rehearsal %q", plan, rehearsal)
		}
		if id, err = w.Engine.Start(w.Context(), "outer", nil); err != nil {
			w.Fatal(err)
		}
		if x := w.End(id); x.State != flow.Done {
			w.Errorf("it is %s: %v", x.State, x.Error)
		}
	})
}

// A secret that a sub-flow returns is one of its caller from then on, and of that one's caller: nothing shows it, and tools get it.
func TestTheSecretOfASubflowStaysOne(t *testing.T) {
	t.Parallel()
	const secret = "s3same-\"open\""
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "vault", Effect: flow.Pure}, flowtest.Returns(string(must(json.Marshal(map[string]string{"token": secret})))))
		use := w.Fake(flow.Manifest{Name: "use", Effect: flow.Keyed}, flowtest.Fails("bad", "no "+secret), flowtest.Returns(`{}`))
		for _, document := range []string{
			"flow: inner\nparams: {token: secret}\noutput: {token: \"${params.token}\"}\nsteps: [{name: say, notify: {text: hi}}]\n",
			"flow: middle\noutput: {all: \"${steps.get}\"}\nsteps:\n  - {name: vault, tool: vault}\n" +
				"  - {name: get, flow: inner, with: {token: \"${steps.vault.token}\"}, output: {wrapped: \"Bearer ${output.token}\"}}\n",
			"flow: outer\nsteps:\n  - {name: get, flow: middle}\n  - {name: use, tool: use, with: {token: \"${steps.get.all.wrapped}\"}, retry: {attempts: 2}}\n",
		} {
			if _, err := w.Engine.Save(w.Context(), []byte(document)); err != nil {
				w.Fatal(err)
			}
		}
		rehearsal, err := w.Engine.RehearseStart(w.Context(), "outer", nil)
		if err != nil {
			w.Fatal(err)
		}
		id, err := w.Engine.Start(w.Context(), "outer", nil)
		if err != nil {
			w.Fatal(err)
		}
		x := w.End(id)
		if x.State != flow.Done {
			w.Fatalf("it is %s: %v", x.State, x.Error)
		}
		for _, call := range use.Calls() {
			if got := inputOf(call.Input)["token"]; got != "Bearer "+secret {
				w.Errorf("the tool got %v", got)
			}
		}
		export, err := w.Engine.Export(w.Context(), id)
		if err != nil {
			w.Fatal(err)
		}
		shown := []any{x, rehearsal, export, w.Engine.Strike(w.Context(), id, "because of "+secret)}
		rows, _, err := w.Engine.List(w.Context(), flow.Filter{})
		if err != nil {
			w.Fatal(err)
		}
		shown = append(shown, rows)
		for _, row := range rows {
			one, err := w.Engine.Get(w.Context(), row.ID)
			if err != nil {
				w.Fatal(err)
			}
			shown = append(shown, one)
			for event, err := range w.Engine.History(w.Context(), row.ID) {
				shown = append(shown, event, fmt.Sprint(err)) // also what was written before anybody knew that it is one
			}
		}
		for _, one := range shown {
			text, err := json.Marshal(one)
			if err != nil || strings.Contains(string(text), "s3same") {
				w.Errorf("%T shows it: %s, %v", one, text, err)
			}
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func inputOf(input json.RawMessage) map[string]any {
	var out map[string]any
	if json.Unmarshal(input, &out) != nil {
		return nil
	}
	return out
}
