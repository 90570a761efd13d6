package flowtest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// World is an engine in virtual time, over a store in memory. Its methods end the test when something fails. It is for the test's own
// goroutine.
type World struct {
	*testing.T
	// Tools are the engine's. Register others than fakes before the first Start.
	Tools *flow.Tools
	// Engine is the engine, for its verbs.
	Engine *flow.Engine
	// Patience is how long End and Until wait, in virtual time. Default 30 days.
	Patience time.Duration

	store   flow.Store
	mu      sync.Mutex // guards notices
	notices []flow.Notice
}

// Run runs a test in a bubble of virtual time (see testing/synctest), with an engine that ends with it. Steps that run on devices run
// the same tools.
func Run(t *testing.T, test func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { inWorld(t, test) })
}

func inWorld(t *testing.T, test func(w *World)) {
	w := &World{T: t, Tools: flow.NewTools(), Patience: 30 * 24 * time.Hour, store: memstore.New()}
	engine, err := flow.New(flow.Config{
		Store: w.store, Tools: w.Tools, Remote: devices{w.Tools}, Notifier: (*notified)(w), Concurrency: 1 << 16,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Engine = engine
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }() // inWorld waits for it below
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("flowtest: Run: %v", err)
		}
	}()
	synctest.Wait()
	test(w)
}

// devices run tools as if they were here.
type devices struct{ tools *flow.Tools }

func (d devices) Run(ctx context.Context, call flow.Call) flow.Result {
	return d.tools.Run(ctx, call, nil)
}
func (devices) Acknowledge(flow.Call) {}

type notified World

func (n *notified) Notify(_ context.Context, notice flow.Notice) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notices = append(n.notices, notice)
	return nil
}

// Notices are those that were sent, in order.
func (w *World) Notices() []flow.Notice {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]flow.Notice(nil), w.notices...)
}

// Start saves a document and starts an execution of it.
func (w *World) Start(document string, params map[string]any, options ...flow.StartOption) string {
	w.Helper()
	if err := w.Tools.Err(); err != nil {
		w.Fatalf("flowtest: the tools: %v", err)
	}
	saved, err := w.Engine.Save(w.Context(), []byte(document))
	if err != nil {
		w.Fatalf("flowtest: save: %v", err)
	}
	id, err := w.Engine.Start(w.Context(), saved.Name, params, options...)
	if err != nil {
		w.Fatalf("flowtest: start: %v", err)
	}
	return id
}

// End lets time pass until an execution has ended, and returns it. One that does not within Patience fails the test: the message
// says what it waits for.
func (w *World) End(id string) flow.Execution {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), w.Patience)
	defer cancel()
	x, err := w.Engine.Wait(ctx, id)
	if err != nil {
		at := w.Get(id)
		w.Fatalf("flowtest: execution %s has not ended after %s: it is %s at step %q and waits for %s %s", id, w.Patience, at.State, at.Step, at.Wake.Kind, at.Wake.For)
	}
	return x
}

// Until lets time pass until an execution has an event of a kind, and returns the first.
func (w *World) Until(id string, kind flow.EventKind) flow.Event {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), w.Patience)
	defer cancel()
	for event, err := range w.Engine.Watch(ctx, id) {
		if err != nil {
			w.Fatalf("flowtest: watch: %v", err)
		}
		if event.Kind == kind {
			return event
		}
	}
	w.Fatalf("flowtest: execution %s has no %s: it is %s", id, kind, w.Get(id).State)
	return flow.Event{}
}

// Get returns an execution as it is once everything has happened that can happen now.
func (w *World) Get(id string) flow.Execution {
	w.Helper()
	synctest.Wait()
	x, err := w.Engine.Get(context.WithoutCancel(w.Context()), id)
	if err != nil {
		w.Fatalf("flowtest: get: %v", err)
	}
	return x
}

// Output returns the output of a step, decoded; nil if it has none.
func Output(x flow.Execution, step string) map[string]any {
	for _, s := range x.Steps {
		var out map[string]any
		if s.Name == step && json.Unmarshal(s.Output, &out) == nil {
			return out
		}
	}
	return nil
}
