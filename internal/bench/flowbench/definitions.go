package flowbench

import (
	"context"
	"fmt"
	"slices"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/defgen"
)

// Definitions is what became of generated definitions, and of the same with one point broken.
type Definitions struct {
	Good    int // definitions that are good
	Taken   int // of these
	Broken  int // definitions that are broken at one point
	Refused int // of these, at their point
}

// Define lints the definitions of some seeds.
func Define(ctx context.Context, from, to uint64) (d Definitions, err error) {
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: defgen.Tools()})
	if err != nil {
		return d, err
	}
	if _, err := engine.Save(ctx, []byte(defgen.Called)); err != nil {
		return d, fmt.Errorf("the flow that others call: %w", err)
	}
	for seed := from; seed < to; seed++ {
		source, broken, err := defgen.Made(seed)
		if err != nil {
			return d, err
		}
		faults, err := engine.Lint(ctx, []byte(source))
		if err != nil {
			return d, err
		}
		d.Good++
		if len(faults) == 0 {
			d.Taken++
		}
		for i := range broken {
			faults, err := engine.Lint(ctx, []byte(broken[i].Source))
			if err != nil {
				return d, err
			}
			d.Broken++
			if slices.ContainsFunc(faults, broken[i].Says) {
				d.Refused++
			}
		}
	}
	return d, nil
}
