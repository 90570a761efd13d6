package flow_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// The flows that README shows are what Save takes, with nothing missing.
func TestReadmeFlows(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"update-one", "flow"} { // the one that is called first
		found := regexp.MustCompile("(?s)<!-- example: " + name + " -->\n```yaml\n(.*?)```").FindSubmatch(readme)
		if found == nil {
			t.Fatalf("README.md has no flow behind <!-- example: %s -->", name)
		}
		faults, err := engine.Lint(t.Context(), found[1])
		if err != nil || len(faults) > 0 {
			t.Fatalf("%s: %v %v", name, faults, err)
		}
		if _, err := engine.Save(t.Context(), found[1]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
