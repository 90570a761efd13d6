package flowbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
)

// Load is what an engine did under load.
type Load struct {
	Flows    int
	P50, P99 time.Duration // of a flow, from its start to its end
	Rate     float64       // steps a second
	CPU      time.Duration // of this process, per step
	Commits  float64       // per step
	Start    Spread        // commits from the call of Start to its return, its own with them
}

// Spread is a distribution of counts.
type Spread struct{ P50, P99, Max int64 }

// chain is a flow in which each step takes the output of the one before.
func chain() string {
	var b strings.Builder
	b.WriteString("flow: chain\nparams: {wf: string}\nsteps:\n")
	for i := range Steps {
		from := "begin"
		if i > 0 {
			from = fmt.Sprintf("${steps.s%d.text}", i-1)
		}
		fmt.Fprintf(&b, "  - {name: s%d, tool: step, with: {wf: \"${params.wf}\", from: \"%s\", step: %d}}\n", i, from, i)
	}
	return b.String()
}

type stepIn struct {
	WF   string `json:"wf"`
	From string `json:"from"`
	Step int    `json:"step"`
}

type stepOut struct {
	Text string `json:"text"`
}

// counted counts the commits of a store.
type counted struct {
	flow.Store
	commits *atomic.Int64
}

func (c counted) Commit(ctx context.Context, batch []flow.Transition) ([]error, error) {
	defer c.commits.Add(1)
	return c.Store.Commit(ctx, batch)
}

// countedShared is counted for a store that engines share.
type countedShared struct {
	flow.Shared
	commits *atomic.Int64
}

func (c countedShared) Commit(ctx context.Context, batch []flow.Transition) ([]error, error) {
	defer c.commits.Add(1)
	return c.Shared.Commit(ctx, batch)
}

// Run has so many flows of 23 steps run at a time, for a while, and at least one each.
func Run(ctx context.Context, store flow.Store, inflight int, span time.Duration) (load Load, err error) {
	var commits atomic.Int64
	var count flow.Store = counted{store, &commits}
	if shared, ok := store.(flow.Shared); ok {
		count = countedShared{shared, &commits}
	}
	tools := flow.NewTools()
	flow.Func(tools, "step", func(_ context.Context, in stepIn) (stepOut, error) { return stepOut{in.From}, nil }, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: count, Tools: tools})
	if err != nil {
		return load, err
	}
	if _, err := engine.Save(ctx, []byte(chain())); err != nil {
		return load, err
	}
	stop := Background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	one := func() (int64, error) {
		before := commits.Load()
		id, err := engine.Start(ctx, "chain", map[string]any{"wf": "w"})
		if err != nil {
			return 0, err
		}
		waited := commits.Load() - before
		x, err := engine.Wait(ctx, id)
		if err == nil && x.State != flow.Done {
			err = fmt.Errorf("execution %s is %s: %w", id, x.State, x.Error)
		}
		return waited, err
	}
	for range 3 { // what is done once is done
		if _, err := one(); err != nil {
			return load, err
		}
	}
	var mu sync.Mutex
	var took []time.Duration
	var starts []int64
	before, cpu, began := commits.Load(), usage.Processor(), time.Now()
	var group errgroup.Group
	for range inflight {
		group.Go(func() error {
			for {
				at := time.Now()
				waited, err := one()
				if err != nil {
					return err
				}
				mu.Lock()
				took, starts = append(took, time.Since(at)), append(starts, waited)
				mu.Unlock()
				if time.Since(began) > span {
					return nil
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return load, err
	}
	elapsed := time.Since(began)
	slices.Sort(took)
	slices.Sort(starts)
	steps := float64(len(took) * Steps)
	return Load{
		Flows: len(took), P50: took[len(took)/2], P99: took[len(took)*99/100],
		Rate: steps / elapsed.Seconds(), CPU: time.Duration(float64(usage.Processor()-cpu) / steps),
		Commits: float64(commits.Load()-before) / steps,
		Start:   Spread{starts[len(starts)/2], starts[len(starts)*99/100], starts[len(starts)-1]},
	}, nil
}

// Background runs fn until stop is called, which returns its error.
func Background(ctx context.Context, fn func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }() // ends with ctx; stop waits for it
	return func() error {
		cancel()
		return <-done
	}
}
