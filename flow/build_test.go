package flow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

// A flow made in Go is the same document that one would write by hand.
func ExampleBuild() {
	document, err := flow.Build(flow.Definition{
		Name:   "expand",
		Params: []flow.Param{{Name: "module", Type: "string", Required: true}, {Name: "count", Type: "int", Default: 1}},
		Locks:  []string{"module/${params.module}"},
		Steps: []flow.Step{
			{Name: "acquire", Tool: "device.acquire", With: map[string]any{"module": "${params.module}", "count": "${params.count}"}},
			{Name: "many", If: "params.count > 10", Then: []flow.Step{
				{Name: "ask", Approve: &flow.Approve{Text: "expand by ${params.count}?", By: []string{"role:operator"}}, Timeout: flow.Duration(2 * time.Hour)},
			}},
			{Name: "install", Tool: "package.install", Each: "steps.acquire.devices", Parallel: 4, On: "${item.name}", Retry: flow.Retry{Attempts: 3}},
		},
	})
	fmt.Print(string(document))
	fmt.Println(err)
	// Output:
	// flow: expand
	// params:
	//   module: {type: string, required: true}
	//   count: {type: int, default: 1}
	// locks: ['module/${params.module}']
	// steps:
	//   - name: acquire
	//     tool: device.acquire
	//     with:
	//       count: ${params.count}
	//       module: ${params.module}
	//   - name: many
	//     if: params.count > 10
	//     then:
	//       - name: ask
	//         approve:
	//           text: expand by ${params.count}?
	//           by: ['role:operator']
	//         timeout: 2h
	//   - name: install
	//     tool: package.install
	//     on: ${item.name}
	//     each: steps.acquire.devices
	//     parallel: 4
	//     retry:
	//       attempts: 3
	// <nil>
}

// sameDefinition ignores what is not in a document.
var sameDefinition = cmp.Options{
	cmpopts.IgnoreUnexported(flow.Param{}, flow.Definition{}), cmpopts.IgnoreFields(flow.Definition{}, "Digest", "Source", "Version", "SavedAt"), cmpopts.EquateEmpty(),
}

// A definition goes through its document unchanged, and so does its document: it has one form.
func TestBuildRoundTrip(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		made := defgen.Definition(seed)
		document, err := flow.Build(made)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, document)
		}
		read, err := flow.Parse(document)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := cmp.Diff(made, read, sameDefinition); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, document)
		}
		again, err := flow.Build(read)
		if diff := cmp.Diff(string(document), string(again)); diff != "" || err != nil {
			t.Fatalf("seed %d: %v %s", seed, err, diff)
		}
	}
}

// Documents written by hand keep their meaning, too.
func TestBuildKeepsDocuments(t *testing.T) {
	t.Parallel()
	var sources []string
	for _, step := range goodSteps {
		sources = append(sources, lintHead+"  - "+step)
	}
	for _, steps := range goodBlocks {
		sources = append(sources, blocks(steps))
	}
	for _, source := range sources {
		read, err := flow.Parse([]byte(source))
		if err != nil {
			t.Fatal(err)
		}
		document, err := flow.Build(read)
		if err != nil {
			t.Fatalf("%s\n%v\n%s", source, err, document)
		}
		again, err := flow.Parse(document)
		if diff := cmp.Diff(read, again, sameDefinition); diff != "" || err != nil {
			t.Errorf("%s\n%v%s", source, err, diff)
		}
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	document, err := flow.Build(flow.Definition{Name: "f", Steps: []flow.Step{{Name: "a", Tool: "x", Parallel: 2}, {Name: "a", Sleep: "1m"}}})
	var broken *flow.DefinitionError
	if !errors.As(err, &broken) || len(broken.Faults) != 2 || !strings.Contains(err.Error(), "is for steps with each") || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v\n%s", err, document)
	}
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: lintTools()})
	if err != nil {
		t.Fatal(err)
	}
	document, err = flow.Build(flow.Definition{Name: "f", Steps: []flow.Step{{Name: "a", Tool: "free"}}})
	if err != nil {
		t.Fatal(err)
	}
	if saved, err := engine.Save(context.Background(), document); err != nil || saved.Version != 1 {
		t.Error(saved, err)
	}
}
