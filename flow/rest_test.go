package flow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	for name, open := range map[string]func() flow.Store{
		"alone": memstore.New, "shared": func() flow.Store { return memstore.NewShared(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { executionsRest(t, open()) })
		})
	}
}

func executionsRest(t *testing.T, store flow.Store) {
	tools := flow.NewTools()
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
}

// cutOff is a member's way to a shared store: it can be cut, and counts what is read of histories.
type cutOff struct {
	flow.Shared
	cut   atomic.Bool
	reads atomic.Int64
}

func (c *cutOff) away() error {
	if c.cut.Load() {
		return errors.New("cut off")
	}
	return nil
}

func (c *cutOff) Join(ctx context.Context, name string, lease time.Duration) (int64, error) {
	if err := c.away(); err != nil {
		return 0, err
	}
	return c.Shared.Join(ctx, name, lease)
}

func (c *cutOff) Beat(ctx context.Context, member int64) (flow.Beat, error) {
	if err := c.away(); err != nil {
		return flow.Beat{}, err
	}
	return c.Shared.Beat(ctx, member)
}

func (c *cutOff) History(ctx context.Context, id string, after int64, limit int) ([]flow.Record, error) {
	c.reads.Add(1)
	return c.Shared.History(ctx, id, after, limit)
}

// Of engines that share a store, the owner of an execution that waits outside memory wakes it: at its time, and for a letter. Its next owner takes it
// over unread, and wakes it in its stead.
func TestRestAmongEngines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const executions = 300 // several claims
		store, tools := memstore.NewShared(nil), flow.NewTools()
		var calls atomic.Int64
		refuse(tools, &calls)
		ctx, cancel := context.WithCancel(t.Context())
		var ways [2]*cutOff
		var engines [2]*flow.Engine
		ended := make(chan error, len(engines))
		for i := range engines {
			ways[i] = &cutOff{Shared: store}
			var err error
			if engines[i], err = flow.New(flow.Config{Store: ways[i], Tools: tools, Name: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			go func() { ended <- engines[i].Run(ctx) }() // ends with ctx; waited for below
			time.Sleep(time.Second)
		}
		first, second := engines[0], engines[1]
		live := func(want ...int) {
			t.Helper()
			synctest.Wait()
			if got := []int{first.Live(), second.Live()}; !slices.Equal(got, want) {
				t.Errorf("%d executions are in memory, want %d", got, want)
			}
		}
		if _, err := first.Save(t.Context(), []byte(patient)); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for i := range executions {
			id, err := first.Start(t.Context(), "patient", map[string]any{"n": 1}, flow.Key(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		live(executions, 0)
		time.Sleep(30 * time.Second)
		live(0, 0)
		for _, verb := range []func(context.Context, string, flow.Intervention) error{second.Pause, second.Resume} {
			if err := verb(t.Context(), ids[0], flow.Intervention{Actor: "ann"}); err != nil {
				t.Fatal(err)
			}
		}
		live(1, 0)
		time.Sleep(30 * time.Second)
		live(0, 0)

		ways[0].cut.Store(true)
		ways[1].reads.Store(0)
		time.Sleep(30 * time.Second)
		live(0, 0)
		for _, id := range []string{ids[0], ids[executions-1]} {
			if row, err := store.Get(t.Context(), id); err != nil || row.Owner != 2 {
				t.Errorf("%s is owned by %d, %v; want 2, who took it over", id, row.Owner, err)
			}
		}
		if n := ways[1].reads.Load(); n != 0 {
			t.Errorf("%d histories were read to take over what waits, want 0", n)
		}
		ways[0].cut.Store(false) // it joins again, as another
		ways[0].reads.Store(0)
		watched := make(chan flow.EventKind, 1)
		go func() { // ends with the execution, or ctx
			var last flow.EventKind
			for event, err := range first.Watch(ctx, ids[1]) {
				if err != nil {
					t.Error(err)
				}
				last = event.Kind
			}
			watched <- last
		}()
		time.Sleep(time.Hour) // every first step is tried again and succeeds; the second waits for a person
		live(0, 0)
		if got := calls.Load(); got != 3*executions {
			t.Errorf("%d calls, want %d: each was tried again once, by its owner", got, 3*executions)
		}
		for _, id := range ids {
			if err := first.Retry(t.Context(), id, flow.Intervention{Actor: "ann", Reason: "now"}); err != nil {
				t.Fatal(err)
			}
			if x, err := first.Wait(t.Context(), id); err != nil || x.State != flow.Done {
				t.Fatalf("%s: %s, %v", id, x.State, err)
			}
		}
		if last := <-watched; last != flow.EventDone {
			t.Errorf("the last event that was watched through another engine is %s, want %s", last, flow.EventDone)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
		cancel()
		for range engines {
			if err := <-ended; err != nil {
				t.Error(err)
			}
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
