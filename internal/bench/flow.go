package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// steps is the length of the measured flow, that of an expansion.
const steps = 23

type stepIn struct {
	From string `json:"from"`
}

type stepOut struct {
	Text string `json:"text"`
}

// chain is a flow in which each step takes the output of the one before.
func chain() string {
	var b strings.Builder
	b.WriteString("flow: chain\nsteps:\n  - {name: s0, tool: step, with: {from: begin}}\n")
	for i := 1; i < steps; i++ {
		fmt.Fprintf(&b, "  - {name: s%d, tool: step, with: {from: \"${steps.s%d.text}\"}}\n", i, i-1)
	}
	return b.String()
}

// flow measures durable steps on SQLite: one execution at a time, and 64.
func (s *suite) flow(ctx context.Context) (err error) {
	s.Progress("flow: executions of 23 durable steps")
	floor, err := s.durable()
	if err != nil {
		return err
	}
	store, err := sqlitestore.Open(filepath.Join(s.dir, "flow.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	tools := flow.NewTools()
	flow.Func(tools, "step", func(_ context.Context, in stepIn) (stepOut, error) { return stepOut{in.From}, nil }, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		return err
	}
	if _, err := engine.Save(ctx, []byte(chain())); err != nil {
		return err
	}
	stop := background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	execution := func(int, int) error {
		id, err := engine.Start(ctx, "chain", nil)
		if err != nil {
			return err
		}
		x, err := engine.Wait(ctx, id)
		if err == nil && x.State != flow.Done {
			err = fmt.Errorf("execution %s is %s: %v", id, x.State, x.Error)
		}
		return err
	}
	for _, at := range []int{1, 64} {
		took, err := s.crowd(at, execution)
		if err != nil {
			return err
		}
		if at == 1 {
			s.add("flow.step", took/steps/1e3, "us", floor/1e3, "4 KiB appended and fdatasync")
			continue
		}
		s.addRate("flow.steps.64", steps*1e9/took, "steps/s", 1e9/floor, "4 KiB appended and fdatasync, one by one")
	}
	return nil
}
