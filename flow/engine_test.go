package flow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// stores are the stores that engine tests run over.
func stores(t *testing.T, test func(t *testing.T, store flow.Store)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, memstore.New())
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		store, err := sqlitestore.Open(filepath.Join(t.TempDir(), "flow.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		test(t, store)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		store, err := pgstore.Open(t.Context(), pgtest.Start(t).Database(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		test(t, store)
	})
}

// start runs an engine until the test ends.
func start(t *testing.T, config flow.Config) *flow.Engine {
	t.Helper()
	engine, err := flow.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return engine
}

func save(t *testing.T, engine *flow.Engine, source string) flow.Definition {
	t.Helper()
	d, err := engine.Save(t.Context(), []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// finish waits for the end of an execution and returns it with its events as lines. I9: what the engine has in memory at the end is what the
// history says.
func finish(t *testing.T, engine *flow.Engine, id string) (flow.Execution, []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waited, err := engine.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for event, err := range engine.Watch(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, event.String())
	}
	x, err := engine.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, waited, cmpopts.IgnoreUnexported(flow.Execution{}, flow.StepStatus{}, flow.Task{})); diff != "" {
		t.Errorf("Wait and Get differ: %s", diff)
	}
	if !x.State.Ended() {
		t.Fatalf("execution is %s after a minute:\n%s", x.State, strings.Join(lines, "\n"))
	}
	return x, lines
}

type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

type acquireIn struct {
	Module string `json:"module"`
	Count  int    `json:"count"`
}

type device struct {
	Name string `json:"name"`
	Addr string `json:"addr"`
}

type acquireOut struct {
	Devices []device `json:"devices"`
}

// pool registers device.acquire and device.release, which write to a journal.
func pool(tools *flow.Tools, j *journal) {
	flow.Func(tools, "device.acquire", func(_ context.Context, in acquireIn) (acquireOut, error) {
		var out acquireOut
		for i := range in.Count {
			out.Devices = append(out.Devices, device{fmt.Sprintf("d%d", i), fmt.Sprintf("127.0.0.%d", i+1)})
		}
		j.add("acquire %s %d", in.Module, in.Count)
		return out, nil
	}, flow.WithEffect(flow.Keyed), flow.WithUndo("device.release"))
	flow.Func(tools, "device.release", func(_ context.Context, in struct {
		acquireIn
		Done *acquireOut `json:"done,omitempty"`
	}) (struct{}, error) {
		j.add("release %s of %d", in.Module, len(in.Done.Devices))
		return struct{}{}, nil
	}, flow.WithEffect(flow.Keyed))
}

// script is a tool that is a process.
func script(name, body string) flow.Manifest {
	return flow.Manifest{
		Name: name, Command: []string{"/bin/sh", "-c", body}, Effect: flow.Keyed,
		Output: json.RawMessage(`{"type": "object", "properties": {"text": {"type": "string"}}}`),
	}
}

func TestExecutionOfProcessesAndFunctions(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		j := &journal{}
		tools := flow.NewTools()
		pool(tools, j)
		tools.Exec(script("greet", `echo "working on $ZHIYUN_KEY" >&2; printf '{"text": "hello %s"}' "$ZHIYUN_STEP"`))
		engine := start(t, flow.Config{Store: store, Tools: tools})
		save(t, engine, `
flow: expand
params:
  module: {type: string, required: true}
  count: {type: int, default: 2, min: 1}
steps:
  - name: acquire
    tool: device.acquire
    with: {module: "${params.module}", count: "${params.count}"}
  - name: hello
    tool: greet
    each: "${steps.acquire.devices}"
    parallel: 2
    with: {name: "${item.name} of ${size(steps.acquire.devices)}"}
  - name: never
    tool: greet
    when: params.count > 100
  - name: last
    tool: greet
    with: {all: "${steps.hello.items.map(i, i.text)}"}
`)
		id, err := engine.Start(t.Context(), "expand", map[string]any{"module": "shop.cart"}, flow.Key("k"), flow.By("tester"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := engine.Start(t.Context(), "expand", map[string]any{"module": "shop.cart"}, flow.Key("k"))
		if err != nil || again != id {
			t.Fatalf("started again with the same key: %s, %v; want %s", again, err, id)
		}
		x, lines := finish(t, engine, id)
		if x.State != flow.Done {
			t.Fatalf("state %s:\n%s", x.State, strings.Join(lines, "\n"))
		}
		last := x.Steps[3].Tasks[0]
		if got, want := string(last.Input), `{"all":["hello hello","hello hello"]}`; got != want {
			t.Errorf("input of last: %s, want %s", got, want)
		}
		if !strings.Contains(last.Logs, "working on "+id+"/last/0") {
			t.Errorf("logs of last: %q", last.Logs)
		}
		if x.Steps[2].State != flow.StepSkipped {
			t.Errorf("never is %s", x.Steps[2].State)
		}
	})
}

func TestCompensationInReverse(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		j := &journal{}
		tools := flow.NewTools()
		pool(tools, j)
		flow.Func(tools, "install", func(ctx context.Context, in struct {
			Name string `json:"name"`
		}) (struct{}, error) {
			if in.Name == "d1" {
				return struct{}{}, flow.Fatal(errors.New("disk full"))
			}
			return struct{}{}, nil
		}, flow.WithUndo("remove"), flow.WithEffect(flow.Keyed))
		failures := 0
		flow.Func(tools, "remove", func(ctx context.Context, in struct {
			Name string           `json:"name"`
			Done *json.RawMessage `json:"done,omitempty"`
		}) (struct{}, error) {
			if failures++; failures == 1 {
				return struct{}{}, errors.New("busy")
			}
			j.add("remove %s", in.Name)
			return struct{}{}, nil
		})
		engine := start(t, flow.Config{Store: store, Tools: tools})
		save(t, engine, `
flow: expand
steps:
  - {name: acquire, tool: device.acquire, with: {module: m, count: 3}}
  - name: install
    tool: install
    each: steps.acquire.devices
    with: {name: "${item.name}"}
    undo: {retry: {backoff: 1ms}}
`)
		id, err := engine.Start(t.Context(), "expand", nil)
		if err != nil {
			t.Fatal(err)
		}
		x, lines := finish(t, engine, id)
		if x.State != flow.Failed || x.Error == nil || !strings.Contains(x.Error.Message, "disk full") {
			t.Fatalf("state %s, error %v:\n%s", x.State, x.Error, strings.Join(lines, "\n"))
		}
		if got, want := j.String(), "acquire m 3\nremove d1\nremove d0\nrelease m of 3"; got != want {
			t.Errorf("effects:\n%s\nwant:\n%s", got, want)
		}
	})
}

// A step may pin the version of the flow that it calls; whatever is saved of that flow since, the version runs, and what it is given is checked against it.
func TestPinnedFlowsRunTheirVersion(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	flow.Func(tools, "echo", func(_ context.Context, in map[string]any) (map[string]any, error) { return in, nil })
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, "flow: inner\nparams: {n: int}\nsteps: [{name: a, tool: echo, with: {n: \"${params.n}\"}}]")
	save(t, engine, "flow: inner\nparams: {text: {type: string, required: true}}\nsteps: [{name: a, tool: echo, with: {text: \"${params.text}\"}}]")
	save(t, engine, "flow: outer\nsteps: [{name: a, flow: inner@1, with: {n: 1}}, {name: b, flow: inner, with: {text: x}}]")
	for step, want := range map[string]string{
		"flow: inner, with: {n: 1}":      "has no parameter \"n\"",
		"flow: inner@1, with: {text: x}": "has no parameter \"text\"",
		"flow: inner@3":                  "has no version 3",
		"flow: last":                     "would run itself: last -> last",
	} {
		if _, err := engine.Save(t.Context(), []byte("flow: last\nsteps: [{name: a, "+step+"}]")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", step, err)
		}
	}
	if _, err := engine.Save(t.Context(), []byte("flow: inner\nsteps: [{name: a, flow: outer}]")); err == nil || !strings.Contains(err.Error(), "inner -> outer -> inner") {
		t.Errorf("a circle: %v", err)
	}
	id, err := engine.Start(t.Context(), "outer", nil)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done {
		t.Fatal(x.State, x.Error, err)
	}
	rows, _, err := engine.List(t.Context(), flow.Filter{Flow: "inner"})
	if err != nil || len(rows) != 2 || rows[0].Version != 2 || rows[1].Version != 1 {
		t.Errorf("%+v, %v", rows, err)
	}
}
