package flowbench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
)

// Shapes are the flows of many nodes that Nodes runs.
var Shapes = []string{"chain", "branches", "each"}

// shaped is a flow of n nodes.
func shaped(shape string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "flow: %s-%d\nparams: {all: {type: list<int>, default: []}}\nsteps:\n", shape, n)
	switch shape {
	case "chain":
		for i := range n {
			fmt.Fprintf(&b, "  - {name: s%d, tool: node}\n", i)
		}
	case "branches":
		b.WriteString("  - name: all\n    branches:\n")
		for i := range n {
			fmt.Fprintf(&b, "      b%d: [{name: s%d, tool: node}]\n", i, i)
		}
	case "each":
		b.WriteString("  - {name: s, tool: node, each: params.all, parallel: 16}\n")
	}
	return b.String()
}

// Nodes runs flows of a shape, one after the other, in memory: so many times one of so many nodes. It returns what a node takes of the processor.
func Nodes(ctx context.Context, shape string, flows, nodes int) (perNode time.Duration, err error) {
	tools := flow.NewTools()
	flow.Func(tools, "node", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil }, flow.WithEffect(flow.Pure))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		return 0, err
	}
	saved, err := engine.Save(ctx, []byte(shaped(shape, nodes)))
	if err != nil {
		return 0, err
	}
	stop := Background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	params := map[string]any{}
	if shape == "each" {
		all := make([]any, nodes)
		for i := range all {
			all[i] = int64(i)
		}
		params["all"] = all
	}
	runtime.GC() // what was measured before leaves nothing to clear away
	cpu := usage.Processor()
	for range flows {
		if _, err := ended(ctx, engine, saved.Name, params, flow.Done); err != nil {
			return 0, err
		}
	}
	return (usage.Processor() - cpu) / time.Duration(flows*nodes), nil
}

// ended runs a flow to its end, which is to be this one.
func ended(ctx context.Context, engine *flow.Engine, name string, params map[string]any, want flow.State) (flow.Execution, error) {
	id, err := engine.Start(ctx, name, params)
	if err != nil {
		return flow.Execution{}, err
	}
	x, err := engine.Wait(ctx, id)
	if err == nil && x.State != want {
		err = fmt.Errorf("execution %s of %s is %s, want %s: %v", id, name, x.State, want, x.Error)
	}
	return x, err
}
