package flowbench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
)

// Expressions is what expressions cost: the processor's time of a step.
type Expressions struct {
	Ordinary time.Duration // a step whose input are so many expressions
	Constant time.Duration // the same step with constants in their places
	Hostile  time.Duration // from the start of a flow with an expression that would run for minutes to its failure
	Harmless time.Duration // the same flow with one that is over at once
}

// InStep is how many expressions the ordinary step has.
const InStep = 64

// hostile asks for so many sums that it would run for minutes, and none fits. What it may cost is not known when it is saved: that depends on the list.
const hostile = "params.many.exists(a, params.many.exists(b, a + b == -1))"

// Express measures expressions, each in so many rounds.
func Express(ctx context.Context, rounds int) (e Expressions, err error) {
	tools := flow.NewTools()
	flow.Func(tools, "take", func(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil }, flow.WithEffect(flow.Pure))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		return e, err
	}
	for name, value := range map[string]string{"ordinary": "${params.n + %d > 10 ? params.text : params.text + '-'}", "constant": "some text of the same size"} {
		var b strings.Builder
		fmt.Fprintf(&b, "flow: %s\nparams: {n: {type: int, default: 5}, text: {type: string, default: some text of the same size}}\nsteps:\n  - name: s\n    tool: take\n    with:\n", name)
		for i := range InStep {
			fmt.Fprintf(&b, "      f%d: \"%s\"\n", i, strings.ReplaceAll(value, "%d", fmt.Sprint(i)))
		}
		if _, err := engine.Save(ctx, []byte(b.String())); err != nil {
			return e, err
		}
	}
	for name, when := range map[string]string{"hostile": hostile, "harmless": "params.many.exists(a, a == 0)"} {
		text := fmt.Sprintf("flow: %s\nparams: {many: {type: list<int>, required: true}}\nsteps:\n  - {name: s, tool: take, when: %q}\n", name, when)
		if _, err := engine.Save(ctx, []byte(text)); err != nil {
			return e, err
		}
	}
	stop := Background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	many := make([]any, 20_000)
	for i := range many {
		many[i] = int64(i)
	}
	for _, one := range []struct {
		name   string
		params map[string]any
		want   flow.State
		rounds int
		into   *time.Duration
	}{
		{"constant", nil, flow.Done, rounds, &e.Constant}, {"ordinary", nil, flow.Done, rounds, &e.Ordinary},
		{"harmless", map[string]any{"many": many}, flow.Done, 3, &e.Harmless}, {"hostile", map[string]any{"many": many}, flow.Failed, 3, &e.Hostile},
	} {
		cpu := usage.Processor()
		for range one.rounds {
			if _, err := ended(ctx, engine, one.name, one.params, one.want); err != nil {
				return e, err
			}
		}
		*one.into = (usage.Processor() - cpu) / time.Duration(one.rounds)
	}
	return e, nil
}
