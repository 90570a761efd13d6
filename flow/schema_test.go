package flow_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zhiyun-ops/zhiyun/flow"
	"go.yaml.in/yaml/v3"
)

var record = flag.Bool("record", false, "write what is made of the format anew: docs/flow.schema.json, docs/guides/flow-format.md")

func documentSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(flow.JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("flow.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("flow.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// conforms holds a document to the schema as an editor does.
func conforms(t testing.TB, schema *jsonschema.Schema, source string) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(source), &value); err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

// What is made of the format is kept in docs, for editors and people, and is the same there. Write it anew with -record.
func TestFormatIsPublished(t *testing.T) {
	t.Parallel()
	for path, made := range map[string][]byte{"../docs/flow.schema.json": flow.JSONSchema(), "../docs/guides/flow-format.md": flow.FormatPage()} {
		if *record {
			if err := os.WriteFile(path, made, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(kept), string(made)); diff != "" {
			t.Errorf("%s is not what the format says now; go test ./flow -run Published -record\n%s", path, diff)
		}
	}
}

// Every flow of the repository, and every good step of the tests, conforms to the schema.
func TestDocumentsConformToTheSchema(t *testing.T) {
	t.Parallel()
	schema := documentSchema(t)
	files := 0
	for _, pattern := range []string{"../examples/*/*.yaml", "../internal/tools/flows/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains("\n"+string(source), "\nflow: ") {
				continue
			}
			files++
			if err := conforms(t, schema, string(source)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if files < 6 {
		t.Errorf("%d documents found, want the six there are", files)
	}
	for _, step := range goodSteps {
		if err := conforms(t, schema, lintHead+"  - "+step); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	for _, steps := range goodBlocks {
		if err := conforms(t, schema, blocks(steps)); err != nil {
			t.Errorf("%s: %v", steps, err)
		}
	}
}

// What an editor can see is wrong is wrong in the schema, too.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	schema := documentSchema(t)
	for _, step := range []string{
		`{name: a}`, `{tool: free}`, `{name: a, tool: free, flow: f}`, `{name: a, tool: free, ^paralel: 2}`, `{name: a, tool: free, parallel: 2}`, `{name: A, tool: free}`,
		`{name: a, if: x}`, `{name: a, tool: free, then: [{name: b, tool: free}]}`, `{name: a, sleep: 1m, timeout: 3s}`, `{name: a, notify: {severity: loud, text: x}}`,
		`{name: a, tool: free, each: x, repeat: {until: x, max: 2}}`, `{name: a, tool: free, retry: {attempts: 0}}`, `{name: a, tool: free, timeout: 30}`,
		`{name: a, window: {from: "25:00", to: "01:00"}}`, `{name: a, switch: [{when: x}]}`, `{name: a, tool: free, on_failure: ignore}`,
	} {
		if conforms(t, schema, strings.Replace(lintHead+"  - "+step, "^", "", 1)) == nil {
			t.Errorf("%s conforms to the schema", step)
		}
	}
}
