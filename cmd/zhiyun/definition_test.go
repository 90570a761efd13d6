package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

// A person reads a flow before it is run: what is wrong with it, what it would do, how it looks, and what has changed.
func TestAPersonReadsAFlow(t *testing.T) {
	w := controltest.New(t)
	const document = `flow: f
params: {n: {type: int, default: 1}}
steps:
  - {name: one, tool: echo, with: {n: "${params.n}"}}
  - name: many
    if: params.n > 3
    then: [{name: two, tool: echo, with: {n: 2}}]
`
	for _, source := range []string{document, strings.Replace(document, "n: 2", "n: 3", 1)} {
		if _, err := w.Flow.Save(t.Context(), []byte(source)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(document, "tool: echo", "tool: ehco", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string][]string{
		"flow plan f n=5":            {"f v2", "one", `{"n":5}`, "runs", "  two", `{"n":3}`},
		"flow plan f@1":              {"f v1", "not run: is false: params.n > 3", `{"n":2}`},
		"flow plan f -o json":        {`"fate": "not run"`},
		"flow graph f":               {"f v2\n", "└─ many  if params.n > 3"},
		"flow graph f@1 -o dot":      {"digraph", "s_one -> s_many"},
		"flow graph FILE -o mermaid": {"flowchart TD", "ehco"},
		"flow diff f":                {"steps.two", "with", "{n: 2}", "{n: 3}"},
		"flow diff f 2 2":            {"no differences"},
		"flow diff f 1 FILE":         {"steps.one", "ehco"},
		"flow diff f FILE -o json":   {`"after": "ehco"`},
		"flow schema":                {`"$schema"`, `"branches"`},
	} {
		args := strings.Fields(strings.ReplaceAll(call, "FILE", file))
		if call != "flow schema" {
			args = append(args, "--server", w.Target)
		}
		out, err := run(t, args...)
		for _, part := range want {
			if err != nil || !strings.Contains(out, part) {
				t.Errorf("%s: %v, want %q in\n%s", call, err, part, out)
			}
		}
	}
	out, err := run(t, "flow", "lint", file, "--server", w.Target)
	if err == nil || !strings.Contains(out, `no tool is called "ehco"; did you mean "echo"?`) || !strings.Contains(out, "23") {
		t.Errorf("lint: %v\n%s", err, out)
	}
	for _, call := range []string{"flow graph f -o png", "flow graph f@x", "flow diff f 1 2 3", "flow diff f one"} {
		if _, err := run(t, append(strings.Fields(call), "--server", w.Target)...); err == nil {
			t.Errorf("%s is taken", call)
		}
	}
}
