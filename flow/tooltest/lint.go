package tooltest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Problem is something wrong with a manifest, or missing from it.
type Problem struct {
	Field   string `json:"field"`
	Message string `json:"message"`
	Fatal   bool   `json:"fatal"` // false: it works, and could be better
}

var secretName = regexp.MustCompile(`(?i)(password|passwd|secret|token|credential|private_?key|api_?key)$`)

// Lint tells what is wrong with a manifest, the worst first.
func Lint(m flow.Manifest) []Problem {
	var out []Problem
	fatal := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...), true})
	}
	warn := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...), false})
	}
	tools := flow.NewTools()
	if m.Undo != "" && m.Undo != m.Name {
		tools.Exec(flow.Manifest{Name: m.Undo, OnDevice: true})
	}
	if m.Probe != "" && m.Probe != m.Name && m.Probe != m.Undo {
		tools.Exec(flow.Manifest{Name: m.Probe, OnDevice: true})
	}
	tools.Exec(m)
	if err := tools.Err(); err != nil {
		fatal("manifest", "%v", err)
	}
	if m.Title == "" {
		warn("title", "is empty; say in a few words what the tool does, so that people find it")
	}
	if m.Version == "" {
		warn("version", "is empty; executions record it, so that a change of behaviour can be told from a change of the world")
	}
	if m.Timeout == 0 {
		warn("timeout", "is not set; %s holds, which may be long for a tool that hangs", flow.DefaultTimeout)
	}
	switch m.Effect {
	case "":
		warn("effect", "is not set, so it is manual: whenever an attempt is cut off, a person is woken; say pure, keyed or probe if it is")
	case flow.Keyed, flow.Probe:
		if m.Undo == "" && !strings.HasSuffix(m.Name, ".undo") {
			warn("undo", "is empty; a flow that fails behind this tool cannot take back what it did")
		}
	case flow.Pure:
		if m.Undo != "" {
			warn("undo", "is %s, and a pure tool has nothing to undo", m.Undo)
		}
	}
	if len(m.Input) == 0 {
		warn("input", "is empty: anything is taken, and a misspelt field is found when the flow runs")
	}
	if len(m.Output) == 0 {
		warn("output", "is empty: nothing checks what later steps refer to")
	}
	if len(m.Examples) == 0 {
		fatal("examples", "are missing; give at least one input that works in an empty folder: they are the tool's tests")
	}
	out = append(out, schemaProblems("input", m.Input)...)
	out = append(out, schemaProblems("output", m.Output)...)
	out = append(out, exampleProblems(m)...)
	if dir := m.Dir; dir != "" && len(m.Command) > 0 && strings.ContainsRune(m.Command[0], '/') {
		path := m.Command[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if info, err := os.Stat(path); err != nil {
			fatal("command", "%v; build it first", err)
		} else if info.IsDir() || info.Mode()&0o111 == 0 {
			fatal("command", "%s is not an executable file; chmod +x it", path)
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int {
		switch {
		case a.Fatal == b.Fatal:
			return 0
		case a.Fatal:
			return -1
		}
		return 1
	})
	return out
}

func schemaProblems(field string, schema json.RawMessage) []Problem {
	var form struct {
		Properties map[string]struct {
			Type        any    `json:"type"`
			Ref         string `json:"$ref"`
			Enum        []any  `json:"enum"`
			Description string `json:"description"`
			WriteOnly   bool   `json:"writeOnly"`
		} `json:"properties"`
	}
	if len(schema) == 0 || json.Unmarshal(schema, &form) != nil {
		return nil // told above
	}
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(form.Properties)) {
		p := form.Properties[name]
		at := field + "." + name
		if p.Type == nil && p.Ref == "" && p.Enum == nil {
			out = append(out, Problem{at, "has no type: nothing can be checked when a flow is saved", false})
		}
		if p.Description == "" && field == "input" {
			out = append(out, Problem{at, "has no description; people fill it in by its name alone", false})
		}
		if field == "output" && secretName.MatchString(name) {
			out = append(out, Problem{at, "looks like a secret: outputs stay in the history for good; return a reference to it", true})
		}
		if field == "input" && secretName.MatchString(name) && !p.WriteOnly {
			out = append(out, Problem{at, `looks like a secret; say "writeOnly": true, and have flows hand in a parameter of type secret`, false})
		}
	}
	return out
}

// exampleProblems holds the examples to the schemas: a tool of nothing but schemas runs them.
func exampleProblems(m flow.Manifest) []Problem {
	var out []Problem
	for i, example := range m.Examples {
		for field, part := range map[string]struct{ schema, value json.RawMessage }{"input": {m.Input, example.Input}, "output": {m.Output, example.Output}} {
			if field == "output" && len(part.value) == 0 {
				continue
			}
			if err := flow.ValidateJSON(part.schema, part.value, field == "input"); err != nil {
				out = append(out, Problem{fmt.Sprintf("examples[%d].%s", i, field), err.Error(), true})
			}
		}
	}
	return out
}
