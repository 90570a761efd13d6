package flow_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

func TestAFlowThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = engine.Plan(t.Context(), "nosuch", nil)
	if !errors.Is(err, flow.ErrNotFound) || !strings.Contains(err.Error(), `no flow is called "nosuch"`) {
		t.Errorf("a plan: %v", err)
	}
}
