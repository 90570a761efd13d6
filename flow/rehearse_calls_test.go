package flow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// planOnly answers plan calls, and fails the test if the tool is really run.
func planOnly(t *testing.T, answer func(flow.Call) string) flowtest.Outcome {
	return func(_ context.Context, call flow.Call) flow.Result {
		if !call.Plan {
			t.Errorf("%s was run", call.Tool)
		}
		return flow.Result{Output: json.RawMessage(answer(call))}
	}
}

// The rehearsal of a start asks every tool that can tell, feeds what it would return to the steps behind it, goes into sub-flows, runs nothing and keeps nothing.
func TestRehearseStartAsksTools(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "device.acquire", Plan: true, Effect: flow.Keyed}, planOnly(w.T, func(flow.Call) string {
			return `{"touches":[{"kind":"device","name":"d1","change":"idle -> held"},{"kind":"device","name":"d2","change":"idle -> held"}],"output":{"devices":["d1","d2"]}}`
		}))
		w.Fake(flow.Manifest{Name: "package.install", Plan: true, OnDevice: true, Effect: flow.Keyed}, planOnly(w.T, func(call flow.Call) string {
			return fmt.Sprintf(`{"touches":[{"kind":"package","name":%q,"change":"1.0"}],"output":{"digest":"sha256:1"}}`, call.Device)
		}))
		w.Fake(flow.Manifest{Name: "script.run", Effect: flow.Manual}, planOnly(w.T, func(flow.Call) string { return "{}" }))
		w.Fake(flow.Manifest{Name: "name.lookup", Effect: flow.Pure}, func(context.Context, flow.Call) flow.Result {
			return flow.Result{Output: json.RawMessage(`{"name":"cart"}`)}
		})
		w.Fake(flow.Manifest{Name: "join", Plan: true, Effect: flow.Keyed}, planOnly(w.T, func(call flow.Call) string {
			if strings.Contains(string(call.Input), "d2") {
				return `{"touches":[{"kind":"","name":"x"}]}`
			}
			return `{"touches":[{"kind":"device","name":"d1","change":"idle -> held"},{"kind":"service","name":"cart"}],"output":{}}`
		}))
		if _, err := w.Engine.Save(w.Context(), []byte(`
flow: join
params: {devices: list<string>, name: string}
output: {count: "${size(params.devices)}"}
steps: [{name: each_one, tool: join, each: "${params.devices}", with: {device: "${item}", name: "${params.name}"}}]
`)); err != nil {
			w.Fatal(err)
		}
		if _, err := w.Engine.Save(w.Context(), []byte(`
flow: expand
params: {count: {type: int, default: 2}, password: secret}
steps:
  - {name: lookup, tool: name.lookup}
  - {name: acquire, tool: device.acquire, with: {count: "${params.count}", password: "${params.password}", key: "${execution.id}"}}
  - {name: install, tool: package.install, each: "${steps.acquire.devices}", on: "${item}"}
  - {name: script, tool: script.run, each: "${steps.install.items}", with: {digest: "${item.digest}"}}
  - {name: later, tool: device.acquire, with: {of: "${steps.script.items[0].text}"}}
  - {name: never, tool: device.acquire, when: params.count > 5}
  - {name: join, flow: join, with: {devices: "${steps.acquire.devices}", name: "${steps.lookup.name}"}}
  - name: way
    if: steps.join.count > 1
    then: [{name: many, tool: device.acquire, with: {n: "${steps.join.count}"}}]
    else: [{name: few, tool: script.run}]
`)); err != nil {
			w.Fatal(err)
		}
		got, err := w.Engine.RehearseStart(w.Context(), "expand", map[string]any{"password": "geheim"})
		if err != nil {
			w.Fatal(err)
		}
		var calls []string
		for _, c := range got.Calls {
			calls = append(calls, fmt.Sprintf("%s %d %s %s known=%t touches=%d %v", c.Step, c.Item, c.Device, c.Input, c.Known, len(c.Touches), c.Error))
		}
		want := []string{
			`lookup 0  {} known=true touches=0 <nil>`,
			`acquire 0  {"count":2,"key":"rehearsal","password":"******"} known=true touches=2 <nil>`,
			`install 0 d1 {} known=true touches=1 <nil>`,
			`install 1 d2 {} known=true touches=1 <nil>`,
			`script 0  {"digest":"sha256:1"} known=false touches=0 <nil>`,
			`script 1  {"digest":"sha256:1"} known=false touches=0 <nil>`,
			`join/each_one 0  {"device":"d1","name":"cart"} known=true touches=2 <nil>`,
			`join/each_one 1  {"device":"d2","name":"cart"} known=false touches=0 output.invalid: the plan of join: touches[0] has no kind or no name`,
			`many 0  {"n":2} known=true touches=2 <nil>`,
		}
		if diff := cmp.Diff(want, calls); diff != "" {
			w.Error(diff)
		}
		fates := map[string]flow.Fate{}
		for _, s := range got.Steps {
			fates[s.Name] = s.Fate
			if s.Name == "later" && (len(s.Needs) != 1 || s.Needs[0] != "script") {
				w.Errorf("later needs %v", s.Needs)
			}
		}
		if fates["never"] != flow.RunsNot || fates["few"] != flow.RunsNot || fates["many"] != flow.Runs {
			w.Errorf("fates: %v", fates)
		}
		if len(got.Touches) != 5 { // d1, d2 held once each, two packages, a service
			w.Errorf("touches: %v", got.Touches)
		}
		if all, _, err := w.Engine.List(w.Context(), flow.Filter{}); err != nil || len(all) > 0 {
			w.Errorf("something was started: %v, %v", all, err)
		}
		if _, err := w.Engine.RehearseStart(w.Context(), "expand", map[string]any{"count": "x"}); err == nil {
			w.Error("a wrong parameter was taken")
		}
	})
}
