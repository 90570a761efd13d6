package flow_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// The flow that README shows is one that Save takes.
func TestReadmeFlow(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)<!-- example: flow -->\n```yaml\n(.*?)```").FindSubmatch(readme)
	if found == nil {
		t.Fatal("README.md has no flow behind <!-- example: flow -->")
	}
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools()})
	if err != nil {
		t.Fatal(err)
	}
	faults, err := engine.Lint(t.Context(), found[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		if !fault.Warning { // the flow that it calls is not shown
			t.Error(fault)
		}
	}
}
