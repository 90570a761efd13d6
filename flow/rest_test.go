package flow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

const patient = `
flow: patient
params: {n: int}
steps:
  - {name: first, tool: refuse, with: {n: "${params.n}"}, retry: {attempts: 5, backoff: 1h, max: 1h}}
  - {name: second, tool: refuse, with: {n: 0}, on_failure: pause, retry: {attempts: 1}}
`

// refuse fails as often as its input says.
func refuse(tools *flow.Tools, calls *atomic.Int64) {
	tries := map[string]int{}
	lock := make(chan struct{}, 1)
	flow.Func(tools, "refuse", func(ctx context.Context, in struct {
		N int `json:"n"`
	}) (struct{}, error) {
		call, _ := flow.CallFrom(ctx)
		calls.Add(1)
		lock <- struct{}{}
		defer func() { <-lock }()
		tries[call.Key]++
		if tries[call.Key] <= in.N || call.Step == "second" && tries[call.Key] == 1 {
			return struct{}{}, errors.New("not yet")
		}
		return struct{}{}, nil
	}, flow.WithEffect(flow.Pure))
}

// Executions that wait leave memory and come back at their time, when a person asks, and in another engine; with nothing lost and nothing done twice.
func TestExecutionsRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, tools := memstore.New(), flow.NewTools()
		var calls atomic.Int64
		refuse(tools, &calls)
		var ids []string
		run := func(fn func(*flow.Engine)) {
			engine, err := flow.New(flow.Config{Store: store, Tools: tools})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
			fn(engine)
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		check := func(engine *flow.Engine, live int, wake flow.WakeKind) {
			t.Helper()
			synctest.Wait()
			if got := engine.Live(); got != live {
				t.Errorf("%d executions are in memory, want %d", got, live)
			}
			for _, id := range ids {
				if x, err := engine.Get(t.Context(), id); err != nil || x.Wake.Kind != wake {
					t.Errorf("%s is woken by %v, %v; want %s", id, x.Wake, err, wake)
				}
			}
		}
		run(func(engine *flow.Engine) {
			if _, err := engine.Save(t.Context(), []byte(patient)); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				id, err := engine.Start(t.Context(), "patient", map[string]any{"n": 2}, flow.Key(fmt.Sprint(i)))
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
			check(engine, 3, flow.WakeTimer)
			time.Sleep(time.Minute)
			check(engine, 0, flow.WakeTimer)
			time.Sleep(time.Hour)
			check(engine, 0, flow.WakeTimer) // the second try came and failed
			if got := calls.Load(); got != 6 {
				t.Errorf("%d calls, want 6", got)
			}
			if err := engine.Pause(t.Context(), ids[0], flow.Intervention{Actor: "ann"}); err != nil {
				t.Fatal(err)
			}
			if err := engine.Resume(t.Context(), ids[0], flow.Intervention{Actor: "ann"}); err != nil {
				t.Fatal(err)
			}
			check(engine, 1, flow.WakeTimer)
		})
		run(func(engine *flow.Engine) {
			check(engine, 0, flow.WakeTimer)
			time.Sleep(time.Hour) // the third try succeeds, and the next step waits for a person
			check(engine, 0, flow.WakePerson)
		})
		run(func(engine *flow.Engine) {
			check(engine, 0, flow.WakePerson)
			for _, id := range ids {
				if err := engine.Retry(t.Context(), id, flow.Intervention{Actor: "ann", Reason: "now"}); err != nil {
					t.Fatal(err)
				}
				if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done {
					t.Fatalf("%s: %s, %v", id, x.State, err)
				}
			}
		})
		if got := calls.Load(); got != 15 {
			t.Errorf("%d calls, want 15", got)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	})
}

// An execution that ended and was removed while its alarm was set is not looked for for ever.
func TestRemovedAtRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tools := flow.NewTools()
		refuse(tools, new(atomic.Int64))
		var log bytes.Buffer // written by the engine, read once it has ended
		engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
		if _, err := engine.Save(t.Context(), []byte(patient)); err != nil {
			t.Fatal(err)
		}
		id, err := engine.Start(t.Context(), "patient", map[string]any{"n": 2})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if live := engine.Live(); live != 0 {
			t.Fatalf("%d executions are in memory, want 0", live)
		}
		if err := engine.Cancel(t.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for pruned, err := range engine.Prune(t.Context(), flow.PruneOptions{Keep: time.Second}) {
			if err != nil || pruned.Execution != id {
				t.Fatalf("%+v, %v", pruned, err)
			}
		}
		if _, err := engine.Get(t.Context(), id); !errors.Is(err, flow.ErrNotFound) {
			t.Fatalf("it is there still: %v", err)
		}
		time.Sleep(2 * time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if log.Len() > 0 {
			t.Errorf("the log says:\n%.1000s", log.String())
		}
	})
}

// Who has looked at an execution, and has gone, is not remembered.
func TestListenersAreForgotten(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	refuse(tools, new(atomic.Int64))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools, LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Save(t.Context(), []byte(patient)); err != nil {
		t.Fatal(err)
	}
	id, err := engine.Start(t.Context(), "patient", map[string]any{"n": 0})
	if err != nil {
		t.Fatal(err)
	}
	for range engine.History(t.Context(), "nobody") {
	}
	for range engine.History(t.Context(), id) {
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range engine.Watch(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
		if n := engine.Listeners(); n != 1 {
			t.Errorf("%d executions are listened to, want 1", n)
		}
		cancel()
	}
	for _, err := range engine.Logs(ctx, id, flow.LogFilter{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := engine.Listeners(); n != 0 {
		t.Errorf("%d executions are remembered, want 0", n)
	}
}
