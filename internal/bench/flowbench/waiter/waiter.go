// Package waiter is what a process does that has nothing in it but a flow engine and its store, on which executions wait: the programs below it are
// such processes, one for each store, and link nothing else.
package waiter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
)

// Definition is a flow that waits for a time a day ahead when its tool, "never", has failed once.
const Definition = `
flow: patient
steps:
  - {name: ask, tool: never, retry: {attempts: 9, backoff: 24h, max: 24h}}
`

// Tools are those of the flow.
func Tools() *flow.Tools {
	type nothing struct{}
	tools := flow.NewTools()
	flow.Func(tools, "never", func(context.Context, nothing) (nothing, error) { return nothing{}, errors.New("not yet") }, flow.WithEffect(flow.Pure))
	return tools
}

// Cost is what waiting costs a process.
type Cost struct {
	CPU time.Duration `json:"cpu"` // of all processors
	RSS int64         `json:"rss"` // bytes
}

// Wait runs an engine on what is there, lets what the start cost be over, and returns what it cost to do nothing for a while.
func Wait(ctx context.Context, store flow.Store, span time.Duration) (cost Cost, err error) {
	engine, err := flow.New(flow.Config{Store: store, Tools: Tools()})
	if err != nil {
		return cost, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
	pause(ctx, max(span*4, 50*time.Millisecond))
	before := usage.Processor()
	pause(ctx, span)
	cost = Cost{usage.Processor() - before, usage.Resident()}
	cancel()
	return cost, <-done
}

func pause(ctx context.Context, span time.Duration) {
	select {
	case <-time.After(span):
	case <-ctx.Done():
	}
}

// Store is a store that was opened.
type Store interface {
	flow.Store
	Close() error
}

// Main is a program that waits on the store that its first argument names, for the time that its second says, and prints a Cost as JSON.
func Main(open func(ctx context.Context, name string) (Store, error)) {
	if err := run(open); err != nil {
		fmt.Fprintln(os.Stderr, "waiter:", err)
		os.Exit(1)
	}
}

func run(open func(ctx context.Context, name string) (Store, error)) (err error) {
	if len(os.Args) != 3 {
		return errors.New("want a store and a time to wait")
	}
	span, err := time.ParseDuration(os.Args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	store, err := open(ctx, os.Args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	cost, err := Wait(ctx, store, span)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(cost)
}
