package flow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

const plannedFlow = `flow: grow
title: Grow
params:
  module: {type: string, required: true}
  n: {type: int, default: 2}
  names: {type: "list<string>"}
  token: secret
locks: ["module/${params.module}"]
steps:
  - {name: get, tool: acquire, with: {module: "${params.module}", count: "${params.n * 2}"}}
  - {name: put, tool: free, each: params.names, with: {of: "${item}", from: "${steps.get.devices[0].name}", fixed: ["${params.n}", x], token: "${params.token}"}}
  - name: many
    if: params.n > 10
    then:
      - {name: ask, notify: {text: "more than ten of ${params.module}"}}
      - {name: big, tool: free}
    else:
      - {name: few, tool: free, with: {n: "${params.n}"}}
  - name: found
    switch:
      - {when: params.n > 100, steps: [{name: far, tool: free}]}
      - {when: steps.get.devices.size() > 1, steps: [{name: two, tool: free, with: {x: "${has(steps.big) ? 1 : 2}"}}]}
    else:
      - {name: none, tool: free, when: "params.n > 5 && steps.get.devices.size() > 3"}
  - {name: last, tool: free, with: {two: "${has(steps.two) ? 1 : 2}", text: "by ${execution.actor} for ${params.module}"}}
`

// A plan says what follows from the parameters, and on which steps the rest depends.
func TestPlanOfAFlow(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	if _, err := engine.Save(t.Context(), []byte(plannedFlow)); err != nil {
		t.Fatal(err)
	}
	plan, err := engine.Plan(t.Context(), "grow", map[string]any{"module": "shop", "names": []any{"a", "b", "c"}, "token": "very-secret"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range plan.Steps {
		items := ""
		if s.Items != nil {
			items = fmt.Sprint(" items ", *s.Items)
		}
		got = append(got, strings.TrimRight(fmt.Sprintf("%d %s %s %s%s|%v|%s|needs %v|takes %s|%s", s.Depth, s.Name, s.Kind, s.Fate, items, s.Input, s.Says, s.Needs, s.Takes, s.Why), " "))
	}
	want := []string{
		"0 get tool runs|map[count:4 module:shop]||needs []|takes |",
		"0 put tool runs items 3|map[fixed:[2 x] from:${steps.get.devices[0].name} of:${item} token:******]||needs [get]|takes |",
		"0 many if runs|<nil>||needs []|takes else|",
		"1 ask notify not run|<nil>|more than ten of shop|needs []|takes |is false: params.n > 10",
		"1 big tool not run|<nil>||needs []|takes |is false: params.n > 10",
		"1 few tool runs|map[n:2]||needs []|takes |",
		"0 found switch runs|<nil>||needs [get]|takes |",
		"1 far tool not run|<nil>||needs []|takes |is false: params.n > 100",
		"1 two tool open|map[x:2]||needs []|takes |if steps.get.devices.size() > 1",
		"1 none tool not run|<nil>||needs []|takes |when is false: params.n > 5 && steps.get.devices.size() > 3",
		"0 last tool runs|map[text:by ${execution.actor} for shop two:${has(steps.two) ? 1 : 2}]||needs [two]|takes |",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	first := func(of string) flow.PlannedItem {
		return flow.PlannedItem{Input: map[string]any{"fixed": []any{2.0, "x"}, "from": "${steps.get.devices[0].name}", "of": of, "token": "******"}}
	}
	if diff := cmp.Diff([]flow.PlannedItem{first("a"), first("b"), first("c")}, plan.Steps[1].First); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"module/shop"}, plan.Locks); diff != "" {
		t.Error(diff)
	}
	if rows, _, err := engine.List(t.Context(), flow.Filter{}); err != nil || len(rows) > 0 {
		t.Errorf("a plan left %v, %v", rows, err)
	}
	for name, want := range map[string]error{"grow@7": flow.ErrNotFound, "nothing": flow.ErrNotFound, "no name": flow.ErrInvalid} {
		if _, err := engine.Plan(t.Context(), name, map[string]any{"module": "x"}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := engine.Plan(t.Context(), "grow@1", nil); !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), "module") {
		t.Errorf("without a parameter: %v", err)
	}
}

// What is planned for every generated flow is what each seed says; here it only has to be whole, and never panic.
func TestPlansOfGeneratedFlows(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		document, err := flow.Build(defgen.Definition(seed))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := flow.PlanBeside(string(document), defgen.Tools(), called, map[string]any{"p0": "a", "p1": 3, "p2": true, "p3": []any{"x"}})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, s := range plan.Steps {
			if s.Fate == "" || s.Fate == flow.Open && s.Why == "" || s.Kind == "" {
				t.Errorf("seed %d: %+v", seed, s)
			}
		}
	}
}

func ExampleEngine_Plan() {
	tools := flow.NewTools()
	flow.Func(tools, "count", func(context.Context, map[string]any) (struct {
		N int `json:"n"`
	}, error) {
		panic("not run")
	})
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := engine.Save(context.Background(), []byte(`flow: grow
params: {module: string, hurry: bool}
steps:
  - {name: look, tool: count, with: {of: "${params.module}"}}
  - name: enough
    if: params.hurry || steps.look.n > 3
    then: [{name: tell, notify: {text: "${params.module} has ${steps.look.n}"}}]
`)); err != nil {
		fmt.Println(err)
		return
	}
	for _, hurry := range []bool{true, false} {
		plan, err := engine.Plan(context.Background(), "grow", map[string]any{"module": "shop", "hurry": hurry})
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, s := range plan.Steps {
			fmt.Println(s.Name, s.Fate, s.Takes, s.Input, s.Says, s.Needs)
		}
	}
	// Output:
	// look runs  map[of:shop]  []
	// enough runs then <nil>  []
	// tell runs  <nil> shop has ${steps.look.n} [look]
	// look runs  map[of:shop]  []
	// enough runs  <nil>  [look]
	// tell open  <nil> shop has ${steps.look.n} [look]
}
