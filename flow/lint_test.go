package flow_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

func lintTools() *flow.Tools {
	type acquire struct {
		Module string `json:"module"`
		Count  int    `json:"count,omitempty"`
	}
	tools := flow.NewTools()
	flow.Func(tools, "acquire", func(context.Context, acquire) (acquireOut, error) { return acquireOut{}, nil }, flow.WithEffect(flow.Keyed), flow.WithUndo("free"))
	flow.Func(tools, "free", func(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil })
	tools.Exec(flow.Manifest{Name: "remote", OnDevice: true})
	tools.Exec(flow.Manifest{Name: "level", Command: []string{"true"}, Input: []byte(`{"type":"object","properties":{"level":{"enum":["low","high"]}}}`)})
	return tools
}

func lintEngine(t testing.TB) *flow.Engine {
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: lintTools()})
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

func lint(t testing.TB, engine *flow.Engine, source string) []flow.Fault {
	t.Helper()
	faults, err := engine.Lint(t.Context(), []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

const lintHead = `flow: f
params:
  module: {type: string, required: true}
  names: {type: "list<string>"}
  n: int
steps:
  - {name: first, tool: acquire, with: {module: "${params.module}"}}
`

// Each good step comes after lintHead.
var goodSteps = []string{
	`{name: a, tool: acquire, with: {module: "m-${params.n}", count: "${params.n}"}}`,
	`{name: a, tool: acquire, when: "${params.n > 1 && has(steps.first)}", with: {module: x}}`,
	`{name: a, tool: acquire, each: steps.first.devices, with: {module: "${item.name}", count: "${index}"}}`,
	`{name: a, tool: acquire, each: "${params.names.filter(x, x != '')}", parallel: 8, with: {module: "${item}"}}`,
	`{name: a, tool: remote, on: "${steps.first.devices[0].name}", with: {any: [1, {x: "${params.n}"}], text: "$${literal}"}}`,
	`{name: a, notify: {severity: warning, text: "n is ${params.n} and ${params.module}"}}`,
	`{name: a, flow: other, with: {x: 1}, undo: none}`,
	`{name: a, tool: acquire, with: {module: x}, undo: {tool: free, with: {of: "${steps.a.devices}"}, retry: {attempts: 2}, on_failure: skip}}`,
	`{name: a, tool: acquire, with: {module: "${execution.id}"}, retry: {attempts: 3, backoff: 200ms, max: 5s}, timeout: 30s, total: 2m, on_failure: skip}`,
	`{name: a, tool: level, with: {level: low}}`,
	`{name: a, tool: free, with: {whatever: "${ {'a': [1, 2]}.a[0] }"}}`,
}

func TestGoodStepsAreTaken(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	for _, step := range goodSteps {
		faults := slices.DeleteFunc(lint(t, engine, lintHead+"  - "+step), func(f flow.Fault) bool { return f.Warning })
		if len(faults) > 0 {
			t.Errorf("%s\n%v", step, faults)
		}
	}
}

// Every broken step is refused with the line and column of what is wrong with it: the column is where ^ stands, which is taken
// out before.
func TestBrokenStepsAreRefused(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	for _, one := range []struct{ step, want string }{
		{`{name: a, tool: ^acquier}`, "no tool is called"},
		{`{name: a, tool: acquire, with: ^{count: 1}}`, "is missing; acquire requires it"},
		{`{name: a, tool: acquire, with: {module: x, ^cuont: 1}}`, `did you mean "count"`},
		{`{name: a, tool: acquire, with: {module: ^3}}`, "has type int, want string"},
		{`{name: a, tool: acquire, with: {module: x, count: ^"${params.module}"}}`, "has type string, want int"},
		{`{name: a, tool: acquire, with: {module: "x ${^params.modul}"}}`, `did you mean "module"`},
		{`{name: a, tool: acquire, with: {module: "${^steps.later.x}"}}`, "no step is called"},
		{`{name: a, tool: acquire, with: {module: "${^steps.a.devices[0].name}"}}`, "refers to itself"},
		{`{name: a, tool: acquire, with: {module: "${steps.first^.device[0].name}"}}`, "undefined field 'device'"},
		{`{name: a, tool: acquire, with: {module: "${steps.first.devices[0]^.nam}"}}`, "undefined field 'nam'"},
		{`{name: a, tool: acquire, with: {module: "${^item}"}}`, "item is there only"},
		{`{name: a, tool: acquire, with: {module: "^${params.n"}}`, "no closing }"},
		{`{name: a, tool: acquire, with: {module: "${^nobody}"}}`, "undeclared reference"},
		{`{name: a, tool: acquire, with: {module: "x ${^steps.first.devices}"}}`, "cannot be part of a text"},
		{`{name: a, tool: acquire, when: ^params.n, with: {module: x}}`, "has type int, want bool"},
		{`{name: a, tool: acquire, when: "params.n ^> 'x'", with: {module: x}}`, "no matching overload"},
		{`{name: a, tool: acquire, each: ^params.n, with: {module: x}}`, "has type int, want list"},
		{`{name: a, tool: acquire, each: "^params.names.map(a, params.names.map(b, params.names.map(c, a + b + c)))", with: {module: x}}`, "may cost"},
		{`{name: a, tool: acquire, ^paralel: 2, with: {module: x}}`, "is unknown here"},
		{`{name: a, tool: acquire, parallel: ^2, with: {module: x}}`, "is for steps with each"},
		{`{name: a, tool: acquire, on: ^d1, with: {module: x}}`, "does not run on devices"},
		{`{name: a, tool: ^remote}`, "runs on a device"},
		{`{name: a, tool: acquire, timeout: ^30, with: {module: x}}`, "want a number with a unit"},
		{`{name: a, tool: acquire, timeout: ^2m, total: 1m, with: {module: x}}`, "is more than total"},
		{`{name: a, tool: acquire, retry: {attempts: ^0}, with: {module: x}}`, "from 1 to"},
		{`{name: a, tool: acquire, on_failure: ^ignore, with: {module: x}}`, "want one of"},
		{`{name: a, tool: acquire, undo: ^nothing, with: {module: x}}`, "want none"},
		{`{name: a, tool: acquire, undo: {tool: ^fre}, with: {module: x}}`, `did you mean "free"`},
		{`^{name: a, tool: acquire, flow: g, with: {module: x}}`, "exactly one"},
		{`^{name: a}`, "exactly one"},
		{`{name: ^first, tool: acquire, with: {module: x}}`, "is the name of the step in line 7 already"},
		{`{name: ^a-b, tool: acquire, with: {module: x}}`, "is not a step's name"},
		{`{name: ^in, tool: acquire, with: {module: x}}`, "is not a step's name"},
		{`{name: a, notify: {severity: ^loud, text: x}}`, "want one of [info warning critical]"},
		{`{name: a, notify: {text: x}, retry: ^{attempts: 2}}`, "not for notify"},
		{`{name: a, tool: level, with: ^{level: middle}}`, "must be one of"},
		{`{name: a, name: ^b, tool: acquire, with: {module: x}}`, "is said twice"},
	} {
		column := strings.IndexByte(one.step, '^')
		step := one.step[:column] + one.step[column+1:]
		faults := lint(t, engine, lintHead+"  - "+step)
		if len(faults) == 0 {
			t.Errorf("%s: taken, want %q", step, one.want)
			continue
		}
		line, at := strings.Count(lintHead, "\n")+1, column+5
		if f := faults[0]; f.Line != line || f.Column != at && !strings.Contains(one.want, "twice") || !strings.Contains(f.Message, one.want) {
			t.Errorf("%s\n got %v\nwant %d:%d: ...%s", step, f, line, at, one.want)
		}
	}
}

func TestBrokenDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	step := "\nsteps: [{name: a, tool: free}]"
	for source, want := range map[string]string{
		"":                                   "1:1: the document is empty",
		"flow: f":                            "1:1: steps: is missing",
		"steps: [{name: a, tool: x}]":        "1:1: flow: is missing",
		"flow: F" + step:                     "1:7: flow: \"F\" is not a flow's name",
		"flow: f\nsteps: 3":                  "2:8: steps: want a list of steps",
		"flow: f\n  x: [":                    "not YAML",
		"flow: f\nparams: {a: strin}" + step: "type \"strin\" is unknown",
		"flow: f\nparams: {a: {type: int, default: x}}" + step:                                     "is a text, want int",
		"flow: f\nparams: {a: {type: int, default: 0, min: 1}}" + step:                             "want at least 1",
		"flow: f\nparams: {a: {type: secret, default: x}}" + step:                                  "no place for secrets",
		"flow: f\nparams: {a: {type: string, required: true, default: x}}" + step:                  "has no default",
		"flow: f\nparams: {a: {type: int, pattern: x}}" + step:                                     "a pattern is for a string",
		"flow: f\nparams: {a: {type: string, pattern: '('}}" + step:                                "error parsing regexp",
		"flow: f" + step + "\n---\nflow: g" + step:                                                 "4:1: another document begins here",
		"flow: f" + step + "\n---\n---\nflow: g" + step:                                            "5:1: another document begins here",
		"flow: f" + step + "\n--- {":                                                               "not YAML",
		"flow: f\nparams: {a: secret}\nlocks: [\"m/${params.a}\"]" + step:                          `3:14: locks[0]: parameter "a" is a secret, and the key of a lock is shown`,
		"flow: f\nparams: {a: secret}\nsteps: [{name: b, tool: free, exclusive: \"${params.a}\"}]": "steps[0].exclusive: parameter \"a\" is a secret",
		"flow: f\nparams: {a: secret}\nsteps: [{name: b, tool: remote, on: \"d-${params.a}\"}]":    "steps[0].on: parameter \"a\" is a secret",
		"flow: f\nparams: {a: secret}\nsteps: [{name: b, signal: \"s-${params.a}\"}]":              "steps[0].signal: parameter \"a\" is a secret",
		"flow: f\nparams: &p {a: int}\nsteps: [{name: a, tool: free, with: *p}]":                   "anchors and aliases",
	} {
		faults := lint(t, engine, source)
		if len(faults) == 0 || !strings.Contains(fmt.Sprint(faults), want) {
			t.Errorf("%q: %v, want %q", source, faults, want)
		}
	}
}

// What ends a document is no other one.
func TestAnEndOfADocumentIsNoOther(t *testing.T) {
	t.Parallel()
	engine := lintEngine(t)
	for _, end := range []string{"\n---\n", "\n...\n", "\n---\n# nothing\n", "\n---\n---\n"} {
		if faults := lint(t, engine, "flow: f\nsteps: [{name: a, tool: free}]"+end); len(faults) > 0 {
			t.Errorf("%q: %v", end, faults)
		}
	}
}

// A document of many faults is refused as soon as one of one fault: what nobody reads is not looked for.
func TestManyFaultsAreNotListed(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("flow: f\nsteps:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  - {name: s%d, tool: free, with: {x: \"${steps.s%d_.y}\"}}\n", i, i)
	}
	if faults := lint(t, lintEngine(t), b.String()); len(faults) != 100 {
		t.Errorf("%d faults, want the first 100", len(faults))
	}
}

// No document makes the parser panic; one that is taken is taken again in the same way, and what is read of it is written as a document that says
// the same.
func FuzzLint(f *testing.F) {
	for _, step := range goodSteps {
		f.Add(lintHead + "  - " + step)
	}
	for _, steps := range goodBlocks {
		f.Add(blocks(steps))
	}
	f.Add("flow: f\nsteps: [{name: a, tool: acquire, with: {module: |\n  x ${params.y}\n}}]")
	tools := lintTools()
	f.Fuzz(func(t *testing.T, source string) {
		first := fmt.Sprint(flow.LintBeside(source, tools, others))
		if again := fmt.Sprint(flow.LintBeside(source, tools, others)); first != again {
			t.Errorf("%s, then %s", first, again)
		}
		read, err := flow.Parse([]byte(source))
		if err != nil {
			return
		}
		written, err := flow.Build(read)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		again, err := flow.Parse(written)
		if diff := cmp.Diff(read, again, sameDefinition); diff != "" || err != nil {
			t.Errorf("%v%s\n%s", err, diff, written)
		}
	})
}
