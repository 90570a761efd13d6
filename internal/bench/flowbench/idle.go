package flowbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench/waiter"
)

// Idle is what a process costs that holds executions which only wait, and has nothing else in it than an engine and its store.
type Idle struct {
	CPU float64 // share of one core
	RSS int64   // bytes
}

// Park leaves so many executions in a store that wait for a time a day ahead.
func Park(ctx context.Context, name string, executions int) (err error) {
	store, err := Open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	parked := make(chan struct{}, executions)
	engine, err := flow.New(flow.Config{Store: store, Tools: waiter.Tools(), OnEvent: func(e flow.Event) {
		if e.Kind == flow.EventAttemptFailed {
			parked <- struct{}{}
		}
	}})
	if err != nil {
		return err
	}
	if _, err := engine.Save(ctx, []byte(waiter.Definition)); err != nil {
		return err
	}
	stop := Background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	var group errgroup.Group
	group.SetLimit(128)
	for i := range executions {
		group.Go(func() error {
			_, err := engine.Start(ctx, "patient", nil, flow.Key(strconv.Itoa(i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for range executions {
		select {
		case <-parked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// WaitIn measures a program of package waiter on a store with nothing to do.
func WaitIn(ctx context.Context, program, name string, span time.Duration) (Idle, error) {
	out, err := exec.CommandContext(ctx, program, name, span.String()).Output()
	var cost waiter.Cost
	if err == nil {
		err = json.Unmarshal(out, &cost)
	}
	if err != nil {
		return Idle{}, fmt.Errorf("the process that waited: %w", err)
	}
	return Idle{CPU: cost.CPU.Seconds() / span.Seconds(), RSS: cost.RSS}, nil
}

// Wait measures a process of this program that runs an engine on a store with nothing to do.
func Wait(ctx context.Context, name string, span time.Duration) (Idle, error) {
	process, err := start(ctx, order{Do: "wait", Store: name, Span: span})
	if err != nil {
		return Idle{}, err
	}
	got, err := process.hear("idle")
	if err != nil {
		return Idle{}, err
	}
	if err := process.cmd.Wait(); err != nil {
		return Idle{}, fmt.Errorf("the process that waited: %w", err)
	}
	return Idle{CPU: got.CPU.Seconds() / span.Seconds(), RSS: got.RSS}, nil
}
