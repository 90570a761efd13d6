package flow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// sharedStores runs a test over the stores that engines share; open returns a store for one engine.
func sharedStores(t *testing.T, test func(t *testing.T, open func() flow.Shared)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		store := memstore.NewShared(nil)
		test(t, func() flow.Shared { return store })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := pgtest.Start(t).Database(t)
		test(t, func() flow.Shared {
			store, err := pgstore.Open(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			return store
		})
	})
}

// gated is a tool that waits for its gate.
type gated struct {
	began chan string
	gate  chan struct{}
}

func newGated(tools *flow.Tools) *gated {
	g := &gated{began: make(chan string, 100), gate: make(chan struct{})}
	flow.Func(tools, "wait", func(ctx context.Context, _ struct{}) (struct{}, error) {
		call, _ := flow.CallFrom(ctx)
		g.began <- call.Key
		select {
		case <-g.gate:
			return struct{}{}, nil
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
	}, flow.WithEffect(flow.Keyed))
	return g
}

const twoWaits = "flow: two\nsteps:\n  - {name: a, tool: wait}\n  - {name: b, tool: wait}\n"

// What is started through one engine can be seen, waited for, watched and told through another.
func TestVerbsReachTheOwner(t *testing.T) {
	t.Parallel()
	sharedStores(t, func(t *testing.T, open func() flow.Shared) {
		tools := [2]*flow.Tools{flow.NewTools(), flow.NewTools()}
		gates := [2]*gated{newGated(tools[0]), newGated(tools[1])}
		var engines [2]*flow.Engine
		for i := range engines {
			engines[i] = start(t, flow.Config{Store: open(), Tools: tools[i], Name: fmt.Sprint(i), Heartbeat: time.Second})
			for end := time.Now().Add(time.Minute); i == 0 && !engines[0].Leads() && time.Now().Before(end); {
				<-time.After(5 * time.Millisecond)
			}
		}
		save(t, engines[0], twoWaits)
		id, err := engines[0].Start(t.Context(), "two", nil)
		if err != nil {
			t.Fatal(err)
		}
		<-gates[0].began
		other := engines[1]
		for name, verb := range map[string]func() error{
			"pause":  func() error { return other.Pause(t.Context(), id, flow.Intervention{Actor: "ann", Reason: "lunch"}) },
			"resume": func() error { return other.Resume(t.Context(), id, flow.Intervention{Actor: "ann"}) },
		} {
			if err := verb(); err != nil {
				t.Errorf("%s through another engine: %v", name, err)
			}
		}
		if err := other.Resume(t.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
			t.Error(err)
		}
		// A refusal keeps its meaning on the way.
		if err := other.RetryStep(t.Context(), id, flow.Intervention{Step: "a", Actor: "ann", Reason: "why not"}); !errors.Is(err, flow.ErrState) {
			t.Errorf("a verb that is refused: %v, want ErrState", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := other.Cancel(gone, id, flow.Intervention{Actor: "ann", Reason: "never mind"}); !errors.Is(err, context.Canceled) {
			t.Errorf("a verb that nobody waits for: %v", err)
		}
		watched := make(chan []flow.EventKind, 1)
		go func() { // ends with the execution
			var kinds []flow.EventKind
			for event, err := range other.Watch(t.Context(), id) {
				if err != nil {
					t.Error(err)
				}
				kinds = append(kinds, event.Kind)
			}
			watched <- kinds
		}()
		close(gates[0].gate)
		x, err := other.Wait(t.Context(), id)
		if err != nil || x.State != flow.Done {
			t.Fatalf("waiting in another engine: %v, %v", x.State, err)
		}
		if kinds := <-watched; !slices.Contains(kinds, flow.EventPaused) || kinds[len(kinds)-1] != flow.EventDone {
			t.Errorf("watched through another engine: %v", kinds)
		}
		if err := other.Cancel(t.Context(), id, flow.Intervention{Actor: "ann"}); !errors.Is(err, flow.ErrState) {
			t.Errorf("cancelling what has ended: %v, want ErrState", err)
		}
		if len(gates[1].began) > 0 {
			t.Error("an engine ran what another owns")
		}
	})
}

// An engine that ends hands over what it ran at once; the start that none of them runs yet is claimed; one saves, the other starts.
func TestHandOver(t *testing.T) {
	t.Parallel()
	sharedStores(t, func(t *testing.T, open func() flow.Shared) {
		tools := flow.NewTools()
		gate := newGated(tools)
		atRest, err := flow.New(flow.Config{Store: open(), Tools: tools})
		if err != nil {
			t.Fatal(err)
		}
		save(t, atRest, twoWaits)
		id, err := atRest.Start(t.Context(), "two", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := atRest.Pause(t.Context(), id, flow.Intervention{Actor: "ann", Reason: "not yet"}); err != nil {
			t.Fatal(err)
		}
		if err := atRest.Resume(t.Context(), id, flow.Intervention{Actor: "ann", Reason: "now"}); err != nil {
			t.Fatal(err)
		}
		first, err := flow.New(flow.Config{Store: open(), Tools: tools, Name: "first", Heartbeat: time.Hour, Grace: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- first.Run(ctx) }()
		key := <-gate.began // claimed
		second := start(t, flow.Config{Store: open(), Tools: tools, Name: "second", Heartbeat: time.Hour})
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if again := <-gate.began; again != key { // the next beat is an hour away: it was told
			t.Errorf("%s was handed over, %s began", key, again)
		}
		close(gate.gate)
		if x, err := second.Wait(t.Context(), id); err != nil || x.State != flow.Done {
			t.Fatal(x.State, err)
		}
		// A version that is saved by one is what the other starts from then on.
		save(t, atRest, "flow: two\nsteps:\n  - {name: c, tool: wait}\n")
		for end := time.Now().Add(time.Minute); ; {
			id, err := second.Start(t.Context(), "two", nil)
			if err != nil {
				t.Fatal(err)
			}
			if x, err := second.Wait(t.Context(), id); err != nil || x.Version == 2 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the new version is never started")
			}
		}
	})
}

// One of several engines leads and delivers notices, each once.
func TestOneDelivers(t *testing.T) {
	t.Parallel()
	sharedStores(t, func(t *testing.T, open func() flow.Shared) {
		const flows, engines = 20, 3
		var mu sync.Mutex
		got, from := map[string]int{}, map[int]bool{}
		var all []*flow.Engine
		for i := range engines {
			all = append(all, start(t, flow.Config{
				Store: open(), Tools: flow.NewTools(), Name: fmt.Sprint(i), Heartbeat: 10 * time.Second,
				Notifier: notifierFunc(func(n flow.Notice) error {
					mu.Lock()
					defer mu.Unlock()
					got[n.ID]++
					from[i] = true
					return nil
				}),
			}))
		}
		save(t, all[0], "flow: n\nsteps:\n  - {name: a, notify: {severity: info, text: hello}}\n")
		for i := range flows {
			if _, err := all[i%engines].Start(t.Context(), "n", nil); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(time.Minute); ; {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n == flows {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d of %d notices are delivered", n, flows)
			}
			<-time.After(10 * time.Millisecond)
		}
		leaders := 0
		for _, engine := range all {
			if engine.Leads() {
				leaders++
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range got {
			if n != 1 {
				t.Errorf("notice %s was delivered %d times", id, n)
			}
		}
		if leaders > 1 {
			t.Errorf("%d engines lead", leaders)
		}
	})
}

type notifierFunc func(flow.Notice) error

func (f notifierFunc) Notify(_ context.Context, n flow.Notice) error { return f(n) }
