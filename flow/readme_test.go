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
	if faults, err := engine.Lint(t.Context(), found[1]); err != nil || len(faults) > 0 {
		t.Fatal(faults, err)
	}
}
