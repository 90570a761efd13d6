package flow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// gauge is a tool that takes a second, and counts how often it runs at a time.
type gauge struct {
	mu        sync.Mutex // guards what follows
	now, most int
	order     []string
	started   []time.Duration
	since     time.Time
}

func (g *gauge) run(ctx context.Context, in struct {
	Name string `json:"name,omitempty"`
	Item int    `json:"item,omitempty"`
}) (struct{}, error) {
	g.mu.Lock()
	g.now++
	g.most = max(g.most, g.now)
	g.order = append(g.order, in.Name)
	g.started = append(g.started, time.Since(g.since))
	g.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	return struct{}{}, ctx.Err()
}

// counts returns how many ran at a time at most, and the order in which all began.
func (g *gauge) counts() (most int, order []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most, slices.Clone(g.order)
}

// limited is an engine in virtual time with the tool slow.
func limited(t *testing.T, config flow.Config) (*flow.Engine, *gauge) {
	g := &gauge{since: time.Now()}
	config.Tools = flow.NewTools()
	flow.Func(config.Tools, "slow", g.run, flow.WithEffect(flow.Keyed))
	if config.Store == nil {
		config.Store = memstore.New()
	}
	engine := start(t, config)
	synctest.Wait() // it runs
	return engine, g
}

const oneSlow = `
flow: one
params: {name: {type: string, default: ""}, module: {type: string, default: m}}
steps:
  - {name: work, tool: slow, with: {name: "${params.name}"}}
`

const manySlow = `
flow: many
steps:
  - {name: work, tool: slow, each: "${[0,1,2,3,4,5,6,7,8,9]}", parallel: 10, with: {name: many, item: "${item}"}}
`

func launch(t *testing.T, engine *flow.Engine, name string, params map[string]any, options ...flow.StartOption) string {
	t.Helper()
	id, err := engine.Start(t.Context(), name, params, options...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func ended(t *testing.T, engine *flow.Engine, id string, want flow.State) flow.Execution {
	t.Helper()
	x, err := engine.Wait(t.Context(), id)
	if err != nil || x.State != want {
		t.Fatalf("execution %s is %s (%v), %v; want %s", id, x.State, x.Error, err, want)
	}
	return x
}

func TestToolLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		engine, g := limited(t, flow.Config{Metrics: registry, Limits: flow.Limits{Tools: map[string]flow.ToolLimit{"slow": {Concurrency: 2}}}})
		save(t, engine, manySlow)
		id := launch(t, engine, "many", nil)
		synctest.Wait()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP zhiyun_flow_waiting Attempts that wait before they start, by what for: process, tool, device, module, lock or freeze; executions that wait for their flow's locks count with lock.
# TYPE zhiyun_flow_waiting gauge
zhiyun_flow_waiting{for="device"} 0
zhiyun_flow_waiting{for="freeze"} 0
zhiyun_flow_waiting{for="lock"} 0
zhiyun_flow_waiting{for="module"} 0
zhiyun_flow_waiting{for="process"} 0
zhiyun_flow_waiting{for="tool"} 8
`), "zhiyun_flow_waiting"); err != nil {
			t.Error(err)
		}
		x, err := engine.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if want := "step work waits for tool slow: 2 of 2 run"; !strings.HasPrefix(x.Waiting, want) {
			t.Errorf("it waits for %q, want %q", x.Waiting, want)
		}
		if task := x.Steps[0].Tasks[9]; task.State != flow.TaskQueued || task.Attempt != 0 || !strings.HasPrefix(task.Waits, "waits for tool slow") || task.Queued.IsZero() {
			t.Errorf("task 9 is %+v", task)
		}
		if x = ended(t, engine, id, flow.Done); g.most != 2 {
			t.Errorf("%d ran at a time", g.most)
		}
		if took := x.Ended.Sub(x.Started); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// One execution with one attempt is served among ten of another; greater priorities go first.
func TestLimitsAreFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, g := limited(t, flow.Config{Concurrency: 1})
		save(t, engine, manySlow)
		save(t, engine, oneSlow)
		save(t, engine, strings.Replace(oneSlow, "flow: one", "flow: urgent\npriority: 9", 1))
		many := launch(t, engine, "many", nil)
		synctest.Wait()
		one := launch(t, engine, "one", map[string]any{"name": "one"})
		urgent := launch(t, engine, "urgent", map[string]any{"name": "urgent"})
		ended(t, engine, many, flow.Done)
		ended(t, engine, one, flow.Done)
		ended(t, engine, urgent, flow.Done)
		if want := []string{"many", "urgent", "many", "one"}; !slices.Equal(g.order[:4], want) {
			t.Errorf("they ran in the order %v, want %v first", g.order, want)
		}
	})
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, g := limited(t, flow.Config{Limits: flow.Limits{Tools: map[string]flow.ToolLimit{"slow": {Rate: 2, Burst: 4}}}})
		save(t, engine, manySlow)
		ended(t, engine, launch(t, engine, "many", nil), flow.Done)
		for i, at := range g.started {
			want := time.Duration(max(i-3, 0)) * 500 * time.Millisecond
			if at.Round(time.Millisecond) != want {
				t.Errorf("number %d started at %s, want %s", i, at, want)
			}
		}
	})
}

func TestModuleLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, g := limited(t, flow.Config{Limits: flow.Limits{PerModule: 1}})
		save(t, engine, oneSlow)
		var ids []string
		for i := range 6 {
			ids = append(ids, launch(t, engine, "one", map[string]any{"module": fmt.Sprint("m", i%2)}))
		}
		for _, id := range ids {
			ended(t, engine, id, flow.Done)
		}
		if g.most != 2 {
			t.Errorf("%d ran at a time, of two modules", g.most)
		}
	})
}

// An attempt that waited when the engine stopped is not in doubt: it begins, for the first time, with the next engine.
func TestWaitingSurvivesTheEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		g := &gauge{}
		tools := flow.NewTools()
		flow.Func(tools, "slow", g.run) // manual: in doubt it would wait for a person
		config := flow.Config{Store: store, Tools: tools, Concurrency: 1, Grace: 10 * time.Second}
		engine, err := flow.New(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- engine.Run(ctx) }()
		synctest.Wait()
		save(t, engine, manySlow)
		id := launch(t, engine, "many", nil)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(g.order) != 1 {
			t.Errorf("%d attempts began, want the one that had its turn", len(g.order))
		}
		next := start(t, config)
		x := ended(t, next, id, flow.Done)
		for _, task := range x.Steps[0].Tasks {
			if task.Attempt != 1 {
				t.Errorf("task %d took %d attempts", task.Item, task.Attempt)
			}
		}
		if len(g.order) != 10 {
			t.Errorf("the tool ran %d times", len(g.order))
		}
	})
}

// What waits can be paused, skipped and cancelled, and gives its turn to others.
func TestWaitingIsSteered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, _ := limited(t, flow.Config{Concurrency: 1})
		save(t, engine, oneSlow)
		first := launch(t, engine, "one", nil)
		synctest.Wait()
		var ids []string
		for range 4 {
			ids = append(ids, launch(t, engine, "one", nil))
		}
		synctest.Wait()
		if err := errors.Join(
			engine.Pause(t.Context(), ids[0], flow.Intervention{Actor: "ann"}),
			engine.Cancel(t.Context(), ids[1], flow.Intervention{Actor: "ann"}),
			engine.Skip(t.Context(), ids[2], flow.Intervention{Step: "work", Actor: "ann"}),
		); err != nil {
			t.Fatal(err)
		}
		ended(t, engine, ids[1], flow.Cancelled)
		ended(t, engine, ids[2], flow.Done)
		ended(t, engine, first, flow.Done)
		x := ended(t, engine, ids[3], flow.Done)
		if took := x.Ended.Sub(x.Started); took > 2*time.Second {
			t.Errorf("the last took %s: those before it did not give their turns away", took)
		}
		if err := engine.Resume(t.Context(), ids[0], flow.Intervention{Actor: "ann"}); err != nil {
			t.Fatal(err)
		}
		ended(t, engine, ids[0], flow.Done)
	})
}

func TestStartsAreRefusedBeyondABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, _ := limited(t, flow.Config{Limits: flow.Limits{Open: 2}})
		save(t, engine, oneSlow)
		ids := []string{launch(t, engine, "one", nil, flow.Key("k")), launch(t, engine, "one", nil)}
		_, err := engine.Start(t.Context(), "one", nil)
		var busy *flow.BusyError
		if !errors.As(err, &busy) || !errors.Is(err, flow.ErrBusy) || busy.Open != 2 || busy.After <= 0 {
			t.Fatal(err)
		}
		if again := launch(t, engine, "one", nil, flow.Key("k")); again != ids[0] {
			t.Errorf("the same key started %s", again)
		}
		for _, id := range ids {
			ended(t, engine, id, flow.Done)
		}
		launch(t, engine, "one", nil)
	})
}

const lockedFlow = `
flow: change
params: {module: {type: string, required: true}, name: {type: string, default: ""}}
locks: ["module/${params.module}"]
steps:
  - {name: work, tool: slow, with: {name: "${params.name}"}}
`

// Two changes never meet on one module; what waits says who holds it; the lock survives the engine.
func TestLocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		engine, g := limited(t, flow.Config{Store: store})
		save(t, engine, lockedFlow)
		var ids []string
		for i := range 4 {
			ids = append(ids, launch(t, engine, "change", map[string]any{"module": "a", "name": fmt.Sprint(i)}))
		}
		other := launch(t, engine, "change", map[string]any{"module": "b"})
		synctest.Wait()
		locks, err := engine.Locks(t.Context())
		if err != nil || len(locks) != 2 || locks[0].Key != "module/a" || locks[0].Execution != ids[0] || locks[1].Execution != other {
			t.Fatalf("%+v, %v", locks, err)
		}
		x, err := engine.Get(t.Context(), ids[1])
		if err != nil || !strings.Contains(x.Waiting, "waits for lock module/a: execution "+ids[0]+" holds it since") {
			t.Errorf("it waits for %q, %v", x.Waiting, err)
		}
		if err := engine.Cancel(t.Context(), ids[1], flow.Intervention{Actor: "ann"}); err != nil {
			t.Fatal(err)
		}
		ended(t, engine, ids[1], flow.Cancelled)
		for _, id := range []string{ids[0], ids[2], ids[3], other} {
			ended(t, engine, id, flow.Done)
		}
		if g.most != 2 || !slices.Equal(g.order[len(g.order)-2:], []string{"2", "3"}) {
			t.Errorf("%d ran at a time, in the order %v", g.most, g.order)
		}
		if locks, err := engine.Locks(t.Context()); err != nil || len(locks) > 0 {
			t.Errorf("%v is left, %v", locks, err)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Error(found, err)
		}
	})
}

// A lock that an execution holds when the engine stops is its own with the next engine, whoever is taken up first.
func TestLocksSurviveTheEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		g := &gauge{}
		tools := flow.NewTools()
		flow.Func(tools, "slow", g.run, flow.WithEffect(flow.Keyed))
		config := flow.Config{Store: store, Tools: tools, Grace: time.Millisecond}
		engine, err := flow.New(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- engine.Run(ctx) }()
		synctest.Wait()
		save(t, engine, lockedFlow)
		var ids []string
		for range 8 {
			ids = append(ids, launch(t, engine, "change", map[string]any{"module": "a"}))
		}
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		g.now, g.most = 0, 0
		g.mu.Unlock()
		next := start(t, config)
		for _, id := range ids {
			ended(t, next, id, flow.Done)
		}
		if most, _ := g.counts(); most != 1 {
			t.Errorf("%d ran at a time", most)
		}
	})
}

// What a sub-flow locks it locks in its caller's name, who keeps it to its own end; it does not wait for its caller; and it does not wait where that might be for
// ever.
func TestLocksOfSubflows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, g := limited(t, flow.Config{})
		save(t, engine, lockedFlow)
		save(t, engine, `
flow: both
params: {first: {type: string, required: true}, second: {type: string, required: true}}
locks: ["module/${params.first}"]
steps:
  - {name: pre, tool: slow}
  - {name: inner, flow: change, with: {module: "${params.second}"}}
  - {name: post, tool: slow}
`)
		own := launch(t, engine, "both", map[string]any{"first": "a", "second": "a"})
		ended(t, engine, own, flow.Done)
		// One wants a, then b, the other b, then a: the one that may not wait fails, the other ends.
		up := launch(t, engine, "both", map[string]any{"first": "a", "second": "b"})
		down := launch(t, engine, "both", map[string]any{"first": "b", "second": "a"})
		ended(t, engine, up, flow.Done)
		x := ended(t, engine, down, flow.Failed)
		if !strings.Contains(x.Error.Message, "locked") || !strings.Contains(x.Error.Message, "module/a") {
			t.Error(x.Error)
		}
		if locks, err := engine.Locks(t.Context()); err != nil || len(locks) > 0 {
			t.Errorf("%v is left, %v", locks, err)
		}
		_ = g
	})
}

// Steps with the same exclusive key run one at a time, over all executions; the key is kept over retries.
func TestExclusive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, g := limited(t, flow.Config{})
		save(t, engine, `
flow: migrate
params: {db: {type: string, required: true}}
steps:
  - {name: work, tool: slow, each: "[1, 2]", parallel: 2, exclusive: "db/${params.db}"}
`)
		ids := []string{
			launch(t, engine, "migrate", map[string]any{"db": "x"}), launch(t, engine, "migrate", map[string]any{"db": "x"}),
			launch(t, engine, "migrate", map[string]any{"db": "y"}),
		}
		synctest.Wait()
		x, err := engine.Get(t.Context(), ids[1])
		if err != nil || !strings.Contains(x.Waiting, "waits for lock db/x: execution "+ids[0]+" (work/0) holds it since") {
			t.Errorf("it waits for %q, %v", x.Waiting, err)
		}
		for _, id := range ids {
			ended(t, engine, id, flow.Done)
		}
		if g.most != 2 {
			t.Errorf("%d ran at a time, on two databases", g.most)
		}
		if locks, err := engine.Locks(t.Context()); err != nil || len(locks) > 0 {
			t.Errorf("%v is left, %v", locks, err)
		}
	})
}

// A freeze lets what runs end, and starts nothing new, but what is exempt.
func TestFreeze(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, _ := limited(t, flow.Config{})
		save(t, engine, `
flow: two
params: {module: {type: string, default: m}}
steps: [{name: first, tool: slow}, {name: second, tool: slow}]
`)
		id := launch(t, engine, "two", nil)
		synctest.Wait()
		now := time.Now()
		engine.SetFreezes([]flow.Freeze{{Module: "m", Until: now.Add(time.Hour), Actor: "ann", Reason: "sale", Since: now}})
		free := launch(t, engine, "two", map[string]any{"module": "other"})
		exempt := launch(t, engine, "two", nil, flow.Exempt("the site is down"))
		late := launch(t, engine, "two", nil)
		ended(t, engine, free, flow.Done)
		ended(t, engine, exempt, flow.Done)
		x, err := engine.Get(t.Context(), id)
		if err != nil || x.Steps[0].State != flow.StepDone || !strings.Contains(x.Waiting, "waits for the end of the freeze of module m by ann until ") ||
			!strings.Contains(x.Waiting, ": sale") {
			t.Errorf("the first step is %s, it waits for %q, %v", x.Steps[0].State, x.Waiting, err)
		}
		if x, err := engine.Get(t.Context(), late); err != nil || len(x.Steps[0].Tasks) != 1 || x.Steps[0].Tasks[0].Attempt != 0 {
			t.Errorf("%+v, %v", x.Steps[0], err)
		}
		x = ended(t, engine, id, flow.Done)
		if took := x.Ended.Sub(now); took != time.Hour+time.Second {
			t.Errorf("it ended after %s", took)
		}
		engine.SetFreezes([]flow.Freeze{{Actor: "ann"}})
		all := launch(t, engine, "two", nil)
		synctest.Wait()
		if len(engine.Freezes()) != 1 {
			t.Error(engine.Freezes())
		}
		engine.SetFreezes(nil)
		ended(t, engine, all, flow.Done)
	})
}

func TestWhoMayStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, _ := limited(t, flow.Config{})
		save(t, engine, "flow: guarded\nstart: {by: [ann, \"role:operator\"]}\nsteps: [{name: work, tool: slow}]\n")
		save(t, engine, "flow: outer\nsteps: [{name: inner, flow: guarded}]\n")
		for _, options := range [][]flow.StartOption{{}, {flow.By("eve")}, {flow.By("ann"), flow.As("eve", "role:viewer")}} {
			if _, err := engine.Start(t.Context(), "guarded", nil, options...); !errors.Is(err, flow.ErrDenied) {
				t.Errorf("started: %v", err)
			}
			if _, err := engine.RehearseStart(t.Context(), "guarded", nil, options...); !errors.Is(err, flow.ErrDenied) {
				t.Errorf("rehearsed: %v", err)
			}
		}
		ended(t, engine, launch(t, engine, "guarded", nil, flow.By("ann")), flow.Done)
		ended(t, engine, launch(t, engine, "guarded", nil, flow.By("bob"), flow.As("bob", "role:operator")), flow.Done)
		ended(t, engine, launch(t, engine, "outer", nil, flow.By("ann")), flow.Done)
		x := ended(t, engine, launch(t, engine, "outer", nil, flow.By("eve")), flow.Failed)
		if !strings.Contains(x.Error.Message, "may be started by ann, role:operator, not by eve") {
			t.Error(x.Error)
		}
	})
}

func TestLimitsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools(), Limits: flow.Limits{
		PerDevice: -1, Open: -2, Tools: map[string]flow.ToolLimit{"a": {Concurrency: -1}, "b": {Rate: -1}},
	}})
	for _, want := range []string{"Limits.PerDevice is -1", "Limits.Open is -2", `Limits.Tools["a"]`, `Limits.Tools["b"].Rate is -1`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// Two engines on one PostgreSQL: a lock that an execution of one holds is waited for by the other's, which gets it when it is free.
func TestLocksOfSeveralEngines(t *testing.T) {
	t.Parallel()
	database := pgtest.Start(t).Database(t)
	g := &gauge{}
	var engines []*flow.Engine
	for range 2 {
		store, err := pgstore.Open(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		tools := flow.NewTools()
		flow.Func(tools, "slow", g.run, flow.WithEffect(flow.Keyed))
		engines = append(engines, start(t, flow.Config{Store: store, Tools: tools}))
	}
	save(t, engines[0], lockedFlow)
	var ids []string
	for i := range 6 {
		ids = append(ids, launch(t, engines[i%2], "change", map[string]any{"module": "a", "name": fmt.Sprint(i)}))
	}
	for i, id := range ids {
		ended(t, engines[i%2], id, flow.Done)
	}
	if most, order := g.counts(); most != 1 || len(order) != 6 {
		t.Errorf("%d ran at a time, %d in all", most, len(order))
	}
	if locks, err := engines[1].Locks(t.Context()); err != nil || len(locks) > 0 {
		t.Errorf("%v is left, %v", locks, err)
	}
}

// A key that is empty is refused by what it is.
func TestKeysAreNotEmpty(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	flow.Func(tools, "nothing", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil }, flow.WithEffect(flow.Pure))
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	for name, one := range map[string][2]string{
		"step":  {"steps: [{name: one, tool: nothing, exclusive: \"${params.key}\"}]", `exclusive: "${params.key}" is an empty text, want a text that is not empty`},
		"whole": {"locks: [\"${params.key}\"]\nsteps: [{name: one, tool: nothing}]", `is an empty text, want a text that is not empty`},
	} {
		save(t, engine, "flow: "+name+"\nparams: {key: string}\n"+one[0]+"\n")
		x, err := engine.Wait(t.Context(), begin(t, engine, name, map[string]any{"key": ""}))
		if err != nil || x.State != flow.Failed || !strings.Contains(x.Error.Error(), one[1]) {
			t.Errorf("%s is %s: %v, %v; want %q", name, x.State, x.Error, err, one[1])
		}
	}
}
