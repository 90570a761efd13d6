package flow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// until waits for an event of a kind.
func until(t *testing.T, engine *flow.Engine, id string, kind flow.EventKind) flow.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for event, err := range engine.Watch(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == kind {
			return event
		}
	}
	t.Fatalf("no %s", kind)
	return flow.Event{}
}

func begin(t *testing.T, engine *flow.Engine, name string, params map[string]any, options ...flow.StartOption) string {
	t.Helper()
	id, err := engine.Start(t.Context(), name, params, options...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	const secret = `hun"ter2`
	var seen atomic.Value
	var events journal
	tools := flow.NewTools()
	flow.Func(tools, "login", func(ctx context.Context, in struct {
		Password string `json:"password"`
	}) (struct {
		Echo string `json:"echo"`
	}, error) {
		seen.Store(in.Password)
		flow.Logf(ctx, "using %s", in.Password)
		return struct {
			Echo string `json:"echo"`
		}{"echo " + in.Password}, nil
	})
	flow.Func(tools, "fail", func(_ context.Context, in struct {
		Text string `json:"text"`
	}) (struct{}, error) {
		return struct{}{}, fmt.Errorf("refused: %s", in.Text)
	})
	got := make(notifier, 10)
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools, Notifier: got, OnEvent: func(e flow.Event) {
		data, _ := json.Marshal(e)
		events.add("%s", data)
	}})
	save(t, engine, `
flow: f
params: {password: secret}
steps:
  - {name: login, tool: login, with: {password: "${params.password}"}}
  - {name: fail, tool: fail, with: {text: "${steps.login.echo}"}}
`)
	id := begin(t, engine, "f", map[string]any{"password": secret})
	x, _ := finish(t, engine, id)
	if seen.Load() != secret {
		t.Errorf("the tool saw %v", seen.Load())
	}
	shown, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var watched strings.Builder
	for event, err := range engine.Watch(t.Context(), id) {
		data, _ := json.Marshal(event)
		fmt.Fprintf(&watched, "%s %v\n", data, err)
	}
	list, _, err := engine.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	notice := <-got
	if listed := list[0].Error.Message + notice.Text; strings.Contains(listed, "ter2") || strings.Count(listed, "******") != 2 {
		t.Errorf("List and Notifier: %s", listed)
	}
	for name, text := range map[string]string{"Get": string(shown), "Watch": watched.String(), "OnEvent": events.String()} {
		if strings.Contains(text, "ter2") {
			t.Errorf("%s shows the secret: %s", name, text)
		}
		if !strings.Contains(text, "using ******") || !strings.Contains(text, "refused: echo ******") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// A tool that takes too long is killed with its whole group; its outcome is unknown, and a manual tool waits for a person.
func TestTimeoutKillsTheGroupAndAsksAPerson(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "slow", Command: []string{"/bin/sh", "-c", `(sleep 5; touch ` + dir + `/survived) & sleep 60`}})
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, `{flow: f, steps: [{name: a, tool: slow, timeout: 100ms}, {name: b, tool: slow, when: "has(steps.a.never)", timeout: 1s}]}`)
	id := begin(t, engine, "f", nil)
	stuck := until(t, engine, id, flow.EventStuck)
	if !strings.Contains(stuck.Reason, "did not end within 100ms") {
		t.Errorf("stuck for %q", stuck.Reason)
	}
	if err := engine.Settle(t.Context(), id, flow.Intervention{Step: "b", Done: true}); !errors.Is(err, flow.ErrState) {
		t.Errorf("settle of another step: %v, want ErrState", err)
	}
	if err := engine.Settle(t.Context(), id, flow.Intervention{Step: "a", Done: true, Output: json.RawMessage(`{"by":"hand"}`), Actor: "me"}); err != nil {
		t.Fatal(err)
	}
	x, _ := finish(t, engine, id)
	if x.State != flow.Done || string(x.Steps[0].Output) != `{"by":"hand"}` {
		t.Errorf("%s with %s", x.State, x.Steps[0].Output)
	}
	waited, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
	defer cancel()
	<-waited.Done()
	if _, err := os.Stat(filepath.Join(dir, "survived")); err == nil {
		t.Error("a child of the tool survived it")
	}
}

// A person's slip of the pen is told to the person: it neither fails the step, which would turn the execution back, nor becomes an output that later steps break on.
func TestWhatAPersonGivesFitsTheTool(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	schema := func(field string) json.RawMessage {
		return json.RawMessage(`{"type": "object", "properties": {"` + field + `": {"type": "string"}}, "required": ["` + field + `"]}`)
	}
	tools.Exec(flow.Manifest{Name: "lay", Command: []string{"/bin/sh", "-c", `cat >&2; exit 1`}, Input: schema("name"), Output: schema("path")})
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, `{flow: f, steps: [{name: a, tool: lay, with: {name: x}, on_failure: pause}]}`)
	id := begin(t, engine, "f", nil)
	until(t, engine, id, flow.EventStuck)
	for _, wrong := range []string{`{"nam": "x"}`, `{"name": 7}`, `{"name": "x", "more": 1}`} {
		if err := engine.RetryStep(t.Context(), id, flow.Intervention{Step: "a", Input: json.RawMessage(wrong)}); !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), `the input given for step "a"`) {
			t.Errorf("retry with %s: %v, want an ErrInvalid about the input", wrong, err)
		}
	}
	for _, wrong := range []string{`{"pat": "x"}`, `{"path": 7}`} {
		if err := engine.Settle(t.Context(), id, flow.Intervention{Step: "a", Done: true, Output: json.RawMessage(wrong)}); !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), `the output given for step "a"`) {
			t.Errorf("settle with %s: %v, want an ErrInvalid about the output", wrong, err)
		}
	}
	if x, err := engine.Get(t.Context(), id); err != nil || x.State != flow.Stuck {
		t.Errorf("%s, %v; want it to wait as before", x.State, err)
	}
	if err := engine.Settle(t.Context(), id, flow.Intervention{Step: "a", Done: true, Output: json.RawMessage(`{"path": "x"}`)}); err != nil {
		t.Fatal(err)
	}
	if x, _ := finish(t, engine, id); x.State != flow.Done {
		t.Errorf("%s: %v", x.State, x.Error)
	}
}

func TestCancelStopsAndUndoes(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		j := &journal{}
		tools := flow.NewTools()
		pool(tools, j)
		flow.Func(tools, "hang", func(ctx context.Context, _ struct{}) (struct{}, error) {
			<-ctx.Done()
			return struct{}{}, ctx.Err()
		}, flow.WithEffect(flow.Keyed))
		engine := start(t, flow.Config{Store: store, Tools: tools})
		save(t, engine, `{flow: f, steps: [{name: a, tool: device.acquire, with: {module: m, count: 1}}, {name: b, tool: hang}]}`)
		id := begin(t, engine, "f", nil)
		until(t, engine, id, flow.EventStepDone)
		if err := engine.Cancel(t.Context(), id, flow.Intervention{Actor: "me", Reason: "not needed"}); err != nil {
			t.Fatal(err)
		}
		x, _ := finish(t, engine, id)
		if x.State != flow.Cancelled || j.String() != "acquire m 1\nrelease m of 1" {
			t.Errorf("%s after\n%s", x.State, j)
		}
		if err := engine.Cancel(t.Context(), id, flow.Intervention{Actor: "me", Reason: "again"}); !errors.Is(err, flow.ErrState) {
			t.Errorf("cancel of what has ended: %v, want ErrState", err)
		}
		if err := engine.Pause(t.Context(), "nobody", flow.Intervention{Actor: "me"}); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("pause of nothing: %v, want ErrNotFound", err)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	})
}

// What is asked of an engine before it runs is durable and begins with Run; a paused execution starts nothing.
func TestVerbsBeforeRunAndPause(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		j := &journal{}
		tools := flow.NewTools()
		pool(tools, j)
		config := flow.Config{Store: store, Tools: tools}
		engine, err := flow.New(config)
		if err != nil {
			t.Fatal(err)
		}
		save(t, engine, `{flow: f, steps: [{name: a, tool: device.acquire, with: {module: m, count: 1}}]}`)
		id := begin(t, engine, "f", nil)
		other := begin(t, engine, "f", nil)
		if err := engine.Pause(t.Context(), id, flow.Intervention{Actor: "me", Reason: "wait"}); err != nil {
			t.Fatal(err)
		}
		running := start(t, config)
		finish(t, running, other)
		x, err := running.Get(t.Context(), id)
		if err != nil || !x.Paused || x.Wake.Kind != flow.WakePerson {
			t.Fatalf("paused %t, woken by %+v, %v", x.Paused, x.Wake, err)
		}
		if err := running.Resume(t.Context(), id, flow.Intervention{Actor: "me", Reason: "go"}); err != nil {
			t.Fatal(err)
		}
		if x, _ := finish(t, running, id); x.State != flow.Done {
			t.Errorf("state %s", x.State)
		}
		list, next, err := running.List(t.Context(), flow.Filter{Limit: 1})
		if err != nil || len(list) != 1 || next != list[0].ID {
			t.Fatalf("first page: %v, %q, %v", list, next, err)
		}
		list, next, err = running.List(t.Context(), flow.Filter{Limit: 1, After: next})
		if err != nil || len(list) != 1 || next != "" || list[0].ID != id {
			t.Fatalf("second page: %v, %q, %v", list, next, err)
		}
	})
}

type notifier chan flow.Notice

func (n notifier) Notify(_ context.Context, notice flow.Notice) error {
	n <- notice
	return nil
}

func TestNotices(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		tools := flow.NewTools()
		flow.Func(tools, "fail", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, errors.New("no") }, flow.WithEffect(flow.Pure))
		got := make(notifier, 10)
		engine := start(t, flow.Config{Store: store, Tools: tools, Notifier: got})
		save(t, engine, `{flow: f, params: {who: string, module: string}, steps: [{name: a, notify: {text: "hello ${params.who}"}}, {name: b, tool: fail}]}`)
		begin(t, engine, "f", map[string]any{"who": "you", "module": "shop.cart"})
		for _, want := range []string{"step info hello you", "failed critical flow f failed and was compensated: failed: step b: no"} {
			notice := <-got
			if line := notice.Kind + " " + notice.Severity + " " + notice.Text; line != want || notice.Module != "shop.cart" {
				t.Errorf("got %q of module %q, want %q of shop.cart", line, notice.Module, want)
			}
		}
	})
}

// A sub-flow is an execution of its own; undoing the step compensates it, although it is done.
func TestSubflow(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		j := &journal{}
		tools := flow.NewTools()
		pool(tools, j)
		flow.Func(tools, "fail", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, errors.New("no") }, flow.WithEffect(flow.Pure))
		engine := start(t, flow.Config{Store: store, Tools: tools})
		save(t, engine, `{flow: inner, params: {n: int}, steps: [{name: a, tool: device.acquire, with: {module: m, count: "${params.n}"}}]}`)
		save(t, engine, `{flow: outer, steps: [{name: s, flow: inner, with: {n: 2}}, {name: b, tool: fail}]}`)
		x, lines := finish(t, engine, begin(t, engine, "outer", nil))
		if x.State != flow.Failed || j.String() != "acquire m 2\nrelease m of 2" {
			t.Errorf("%s after\n%s\n%s", x.State, j, strings.Join(lines, "\n"))
		}
		children, _, err := engine.List(t.Context(), flow.Filter{Parent: x.ID})
		if err != nil || len(children) != 1 || children[0].State != flow.Cancelled {
			t.Errorf("children: %v, %v", children, err)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	})
}

// An engine that stops lets attempts finish; its successor goes on with what is left.
func TestStopAndGoOn(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		var runs atomic.Int32
		entered := make(chan struct{}, 10)
		tools := flow.NewTools()
		flow.Func(tools, "step", func(ctx context.Context, _ struct{}) (struct{}, error) {
			entered <- struct{}{}
			if runs.Add(1) == 1 {
				<-ctx.Done() // outlives the grace period
				return struct{}{}, ctx.Err()
			}
			return struct{}{}, nil
		}, flow.WithEffect(flow.Keyed))
		config := flow.Config{Store: store, Tools: tools, Grace: time.Millisecond}
		first, err := flow.New(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- first.Run(ctx) }()
		save(t, first, `{flow: f, steps: [{name: a, tool: step}, {name: b, tool: step}]}`)
		id := begin(t, first, "f", nil)
		<-entered
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		x, lines := finish(t, start(t, config), id)
		if x.State != flow.Done || x.Steps[0].Tasks[0].Attempt != 2 || !strings.Contains(strings.Join(lines, "\n"), "attempt.doubt a attempt=1") {
			t.Errorf("%s:\n%s", x.State, strings.Join(lines, "\n"))
		}
	})
}

func TestConfigAndParamsReportAllFaults(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "a b", Effect: "sometimes", Input: []byte("{")})
	tools.Exec(flow.Manifest{Name: "c", Command: []string{"c"}, Undo: "nobody", Effect: flow.Probe})
	_, err := flow.New(flow.Config{Tools: tools, Concurrency: -1, Grace: -1})
	for _, want := range []string{"Config.Store is nil", "command is empty", "a name is", `effect "sometimes"`, "input: not JSON", `undo tool "nobody"`, "needs a probe tool", "Concurrency is -1", "Grace is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v\nwant %q", err, want)
		}
	}
	engine := start(t, flow.Config{Store: memstore.New(), Tools: lintTools()})
	save(t, engine, `{flow: f, params: {a: {type: int, required: true}, b: {type: string, enum: [x, y]}, c: {type: "list<int>", max: 1}, d: {type: string, pattern: "[a-z]+"}}, steps: [{name: s, tool: free}]}`)
	_, err = engine.Start(t.Context(), "f", map[string]any{"b": "z", "c": []int{1, 2}, "d": "D", "e": 1})
	for _, want := range []string{`"a" (int) is required`, `"b" is not one of`, `"c" is 2 entries, want at most 1`, `"d" does not match`, `"e" is unknown`} {
		if !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Start: %v\nwant %q", err, want)
		}
	}
	if _, err := engine.Start(t.Context(), "nobody", nil); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("start of nothing: %v, want ErrNotFound", err)
	}
}

// A person ends a step that hangs, gives another input to one that failed, and takes the execution back over what was done.
func TestInterventions(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store flow.Store) {
		var mu sync.Mutex
		var did []string
		note := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			did = append(did, fmt.Sprintf(format, args...))
		}
		type in struct {
			N    int             `json:"n"`
			Done json.RawMessage `json:"done,omitempty"`
		}
		tools := flow.NewTools()
		begun := make(chan struct{}, 1)
		flow.Func(tools, "hang", func(ctx context.Context, in in) (struct{}, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return struct{}{}, ctx.Err()
		})
		flow.Func(tools, "take", func(ctx context.Context, in in) (struct {
			N int `json:"n"`
		}, error) {
			call, _ := flow.CallFrom(ctx)
			note("take %d %s", in.N, strings.TrimPrefix(call.Key, call.Execution+"/"))
			if in.N < 0 {
				return struct {
					N int `json:"n"`
				}{}, errors.New("negative")
			}
			return struct {
				N int `json:"n"`
			}{in.N}, nil
		}, flow.WithEffect(flow.Keyed), flow.WithUndo("give"))
		flow.Func(tools, "give", func(ctx context.Context, in in) (struct{}, error) {
			note("give %d", in.N)
			return struct{}{}, nil
		}, flow.WithEffect(flow.Keyed))
		engine := start(t, flow.Config{Store: store, Tools: tools})
		save(t, engine, `
flow: f
steps:
  - {name: one, tool: take, with: {n: 1}}
  - {name: two, tool: take, with: {n: -2}, on_failure: pause}
  - {name: three, tool: hang, with: {n: "${steps.two.n}"}}
`)
		id := begin(t, engine, "f", nil)
		until(t, engine, id, flow.EventStuck)
		for name, refused := range map[string]struct{ err, want error }{
			"no such step":   {engine.Skip(t.Context(), id, flow.Intervention{Step: "nine", Actor: "me"}), flow.ErrNotFound},
			"another step":   {engine.Fail(t.Context(), id, flow.Intervention{Step: "three", Actor: "me"}), flow.ErrState},
			"output's type":  {engine.Skip(t.Context(), id, flow.Intervention{Step: "two", Output: json.RawMessage(`{"n": "text"}`), Actor: "me"}), flow.ErrInvalid},
			"back to future": {engine.Back(t.Context(), id, flow.Intervention{Step: "three", Actor: "me"}), flow.ErrState},
		} {
			if !errors.Is(refused.err, refused.want) {
				t.Errorf("%s: %v, want %v", name, refused.err, refused.want)
			}
		}
		if err := engine.RetryStep(t.Context(), id, flow.Intervention{Step: "two", Input: json.RawMessage(`[]`)}); !errors.Is(err, flow.ErrInvalid) {
			t.Errorf("an input that is a list: %v, want ErrInvalid", err)
		}
		if err := engine.RetryStep(t.Context(), id, flow.Intervention{Step: "two", Input: json.RawMessage(`{"n": 2}`), Actor: "me"}); err != nil {
			t.Fatal(err)
		}
		<-begun
		if err := engine.Back(t.Context(), id, flow.Intervention{Step: "two", Actor: "me", Reason: "once more"}); err != nil {
			t.Fatal(err)
		}
		until(t, engine, id, flow.EventReturned)
		for x := (flow.Execution{}); x.State != flow.Stuck; { // the second time; it ends by itself
			var err error
			if x, err = engine.Get(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if err := engine.Skip(t.Context(), id, flow.Intervention{Step: "two", Output: json.RawMessage(`{"n": 3}`), Actor: "me"}); err != nil {
			t.Fatal(err)
		}
		<-begun
		if err := engine.Fail(t.Context(), id, flow.Intervention{Step: "three", Actor: "me", Reason: "it hangs"}); err != nil {
			t.Fatal(err)
		}
		x, _ := finish(t, engine, id)
		if x.State != flow.Failed || !strings.Contains(x.Error.Error(), "it hangs") {
			t.Errorf("it is %s, %v", x.State, x.Error)
		}
		want := []string{"take 1 one/0", "take -2 two/0", "take 2 two/0", "give 2", "take -2 two/0/r1", "give -2", "give 1"}
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, did); diff != "" {
			t.Error(diff)
		}
		violations, err := flow.Check(t.Context(), store)
		if err != nil || len(violations) > 0 {
			t.Error(violations, err)
		}
	})
}

// Two people skip the same step: the second is told so, and the first one's word stands.
func TestOfTwoWhoSkipOneIsRefused(t *testing.T) {
	t.Parallel()
	tools, begun, free := flow.NewTools(), make(chan struct{}), make(chan struct{})
	flow.Func(tools, "hang", func(context.Context, struct{}) (struct{}, error) {
		close(begun)
		<-free // it is slow to stop
		return struct{}{}, nil
	})
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, "flow: f\nsteps: [{name: one, tool: hang}]\n")
	id := begin(t, engine, "f", nil)
	<-begun
	if err := engine.Skip(t.Context(), id, flow.Intervention{Step: "one", Actor: "ann", Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"skip": engine.Skip(t.Context(), id, flow.Intervention{Step: "one", Actor: "bob"}),
		"fail": engine.Fail(t.Context(), id, flow.Intervention{Step: "one", Actor: "bob"}),
	} {
		if !errors.Is(err, flow.ErrState) || !strings.Contains(err.Error(), "skipped by ann: by hand") {
			t.Errorf("%s of a step that is being skipped: %v", name, err)
		}
	}
	close(free)
	if x, _ := finish(t, engine, id); x.Steps[0].Reason != "skipped by ann: by hand" {
		t.Errorf("step one is %s: %q", x.Steps[0].State, x.Steps[0].Reason)
	}
}
