package flow_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

const drawnFlow = `flow: grow
params: {n: int}
steps:
  - {name: get, tool: acquire, each: "['a', 'b']", on_failure: {steps: [{name: tell, notify: {text: "say \"no\" <b>"}}]}}
  - name: pick
    switch:
      - {when: params.n > 1, steps: [{name: both, branches: {left: [{name: l, sleep: 1m}], right: [{name: r, flow: other@2}]}}]}
  - {name: ask, approve: {text: "go on?"}}
`

func ExampleGraph() {
	d, err := flow.Parse([]byte(drawnFlow))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, form := range []string{"text", "dot", "mermaid"} {
		drawn, err := flow.Graph(d, form)
		fmt.Println(drawn, err)
	}
	// Output:
	// grow
	// ├─ get  acquire, each of ['a', 'b']
	// │  on failure:
	// │  └─ tell  notify "say \"no\" <b>"
	// ├─ pick  switch
	// │  when params.n > 1:
	// │  └─ both  2 branches
	// │     left:
	// │     └─ l  sleep 1m
	// │     right:
	// │     └─ r  flow other@2
	// └─ ask  approve "go on?"
	//  <nil>
	// digraph "grow" {
	//   node [shape=box, fontname="sans-serif"];
	//   start [label="grow", shape=oval];
	//   s_get [label="get\nacquire, each of ['a', 'b']"];
	//   s_tell [label="tell\nnotify \"say \\\"no\\\" <b>\""];
	//   s_pick [label="pick\nswitch", shape=diamond];
	//   s_both [label="both\n2 branches"];
	//   s_l [label="l\nsleep 1m", shape=hexagon];
	//   s_r [label="r\nflow other@2"];
	//   s_ask [label="ask\napprove \"go on?\"", shape=hexagon];
	//   done [label="done", shape=oval];
	//   start -> s_get;
	//   s_get -> s_tell [label="on failure", style=dashed];
	//   s_get -> s_pick;
	//   s_tell -> s_pick;
	//   s_pick -> s_both [label="when params.n > 1"];
	//   s_both -> s_l [label="left"];
	//   s_both -> s_r [label="right"];
	//   s_l -> s_ask;
	//   s_r -> s_ask;
	//   s_pick -> s_ask [label="else"];
	//   s_ask -> done;
	// }
	//  <nil>
	// flowchart TD
	//   start(["grow"])
	//   s_get["get<br/>acquire, each of ['a', 'b']"]
	//   s_tell["tell<br/>notify #quot;say \#quot;no\#quot; #lt;b#gt;#quot;"]
	//   s_pick{"pick<br/>switch"}
	//   s_both["both<br/>2 branches"]
	//   s_l{{"l<br/>sleep 1m"}}
	//   s_r["r<br/>flow other@2"]
	//   s_ask{{"ask<br/>approve #quot;go on?#quot;"}}
	//   done(["done"])
	//   start --> s_get
	//   s_get -.->|"on failure"| s_tell
	//   s_get --> s_pick
	//   s_tell --> s_pick
	//   s_pick -->|"when params.n #gt; 1"| s_both
	//   s_both -->|"left"| s_l
	//   s_both -->|"right"| s_r
	//   s_l --> s_ask
	//   s_r --> s_ask
	//   s_pick -->|"else"| s_ask
	//   s_ask --> done
	//  <nil>
}

// In the graph of every flow each step is met on a way from the start, and leads to the end.
func TestGraphsAreWhole(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`^  (\w+) -> (\w+)`)
	for seed := range uint64(200) {
		drawn, err := flow.Graph(defgen.Definition(seed), "dot")
		if err != nil {
			t.Fatal(err)
		}
		to, from := map[string][]string{}, map[string][]string{}
		for _, text := range strings.Split(drawn, "\n") {
			if m := line.FindStringSubmatch(text); m != nil {
				to[m[1]], from[m[2]] = append(to[m[1]], m[2]), append(from[m[2]], m[1])
			}
		}
		reach := func(start string, edges map[string][]string) map[string]bool {
			seen := map[string]bool{}
			for todo := []string{start}; len(todo) > 0; {
				one := todo[0]
				todo = todo[1:]
				if !seen[one] {
					seen[one] = true
					todo = append(todo, edges[one]...)
				}
			}
			return seen
		}
		nodes := 0
		for _, text := range strings.Split(drawn, "\n") {
			if strings.Contains(text, " [label=") && !strings.Contains(text, " -> ") {
				nodes++
			}
		}
		if there, back := reach("start", to), reach("done", from); len(there) != nodes || len(back) != nodes {
			t.Errorf("seed %d: %d nodes, %d met from the start, %d lead to the end\n%s", seed, nodes, len(there), len(back), drawn)
		}
	}
	if _, err := flow.Graph(defgen.Definition(1), "png"); !errors.Is(err, flow.ErrInvalid) {
		t.Error(err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	const before = `flow: f
title: Old
params: {a: string, b: {type: int, default: 1}}
steps:
  - {name: one, tool: x, with: {n: 1}}
  - {name: two, tool: x, retry: {attempts: 2}}
  - {name: three, tool: x}
  - {name: choice, switch: [{when: params.b > 1, steps: [{name: inner, tool: x}]}]}
`
	for after, want := range map[string][]string{
		before: nil,
		strings.Replace(before, "title: Old\n", "title: New\nlocks: [a]\n", 1): {" title changed Old -> New", " locks added  -> [a]"},
		strings.Replace(before, "a: string, b: {type: int, default: 1}", "c: string, b: {type: int, default: 2}", 1): {
			"params.a  removed {type: string} -> ", "params.c  added  -> {type: string}", "params.b default changed 1 -> 2"},
		strings.Replace(before, "n: 1", "n: 2", 1):                     {"steps.one with changed {n: 1} -> {n: 2}"},
		strings.Replace(before, ", retry: {attempts: 2}", "", 1):       {"steps.two retry removed {attempts: 2} -> "},
		strings.Replace(before, "b > 1", "b > 2", 1):                   {"steps.choice switch changed [{when: params.b > 1}] -> [{when: params.b > 2}]"},
		strings.Replace(before, "  - {name: three, tool: x}\n", "", 1): {"steps.three  removed {tool: x} -> "},
		strings.Replace(strings.Replace(before, "  - {name: three, tool: x}\n", "", 1), "  - {name: one", "  - {name: three, tool: x}\n  - {name: one", 1): {
			"steps.three  moved  -> first"},
		strings.Replace(strings.Replace(before, "  - {name: three, tool: x}\n", "", 1), "{name: inner, tool: x}", "{name: three, tool: x}, {name: inner, tool: y}", 1): {
			"steps.three  moved in the flow -> in case 0 of choice", "steps.inner tool changed x -> y"},
	} {
		a, err := flow.Parse([]byte(before))
		if err != nil {
			t.Fatal(err)
		}
		b, err := flow.Parse([]byte(after))
		if err != nil {
			t.Fatal(err, after)
		}
		var got []string
		for _, c := range flow.Diff(a, b) {
			got = append(got, fmt.Sprintf("%s %s %s %s -> %s", c.Part, c.Field, c.Kind, c.Before, c.After))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", after, diff)
		}
	}
	for seed := range uint64(100) {
		if changes := flow.Diff(defgen.Definition(seed), defgen.Definition(seed)); len(changes) > 0 {
			t.Errorf("seed %d differs from itself: %v", seed, changes)
		}
	}
}

func TestEngineDiff(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	for _, tool := range []string{"free", "acquire"} {
		if _, err := engine.Save(t.Context(), []byte("flow: f\nsteps: [{name: a, tool: "+tool+", with: {module: x}}]")); err != nil {
			t.Fatal(err)
		}
	}
	changes, err := engine.Diff(t.Context(), "f", 1, 0)
	if diff := cmp.Diff([]flow.Change{{Part: "steps.a", Field: "tool", Kind: "changed", Before: "free", After: "acquire"}}, changes); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := engine.Diff(t.Context(), "f", 1, 9); !errors.Is(err, flow.ErrNotFound) {
		t.Error(err)
	}
}
