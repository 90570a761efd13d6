package flow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

const stuckFlow = `
flow: f
params: {module: string, devices: list<string>, password: secret}
steps: [{name: work, tool: work, with: {n: 1}, on_failure: pause}]
`

// bulked gives an order in bulk and returns its lines as text.
func bulked(t *testing.T, engine *flow.Engine, b flow.Bulk) []string {
	t.Helper()
	var out []string
	b.With.Actor = "ann"
	for line, err := range engine.Bulk(t.Context(), b) {
		if err != nil {
			out = append(out, "error: "+err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%s %s->%s of %d %s", line.Outcome, line.Before.State, line.After.State, line.Of, line.Why))
	}
	return out
}

// An order in bulk hits what the filter selects and nothing else, is rehearsed truly, refuses more than was allowed for, and does no harm when it is
// repeated.
func TestBulk(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "work"}, flowtest.FailsForGood("disk", "full on d7"))
		var ids []string
		for i := range 4 {
			ids = append(ids, w.Start(stuckFlow, map[string]any{"module": []string{"shop.cart", "shop.web"}[i%2], "password": "geheim"}))
			w.Get(ids[i])
		}
		cart := flow.Filter{Flow: "f", Params: map[string]string{"module": "shop.cart"}}
		for _, one := range []struct {
			name string
			bulk flow.Bulk
			want []string
		}{
			{"everything", flow.Bulk{Filter: flow.Filter{Open: true}, Order: flow.OrderCancel}, []string{"error: flow: cancel in bulk: invalid: Bulk.Filter selects everything; say which flow, state, step, parameter or device"}},
			{"a signal without an ID", flow.Bulk{Filter: cart, Signal: &flow.BulkSignal{Name: "go"}}, []string{"error: flow: signal in bulk: invalid: Bulk.Signal.ID is empty: give one (--id), or what is repeated would be another signal"}},
			{"too many", flow.Bulk{Filter: flow.Filter{Flow: "f"}, Order: flow.OrderCancel, Max: 3}, []string{"error: flow: cancel in bulk: invalid: more than 3 executions are selected; narrow the filter, or allow for more"}},
			{"rehearsed", flow.Bulk{Filter: cart, Order: flow.OrderCancel, Rehearse: true}, []string{"done stuck->cancelled of 2 ", "done stuck->cancelled of 2 "}},
			{"pause", flow.Bulk{Filter: cart, Order: flow.OrderPause}, []string{"done stuck->stuck of 2 ", "done stuck->stuck of 2 "}},
			{"pause again", flow.Bulk{Filter: cart, Order: flow.OrderPause}, []string{"unchanged stuck->stuck of 2 it stands so already", "unchanged stuck->stuck of 2 it stands so already"}},
			{"resume", flow.Bulk{Filter: cart, Order: flow.OrderResume}, []string{"done stuck->stuck of 2 ", "done stuck->stuck of 2 "}},
			{"by text", flow.Bulk{Filter: flow.Filter{Text: "full on d7", Flow: "f"}, Order: flow.OrderRetry}, []string{"done stuck->running of 4 ", "done stuck->running of 4 ", "done stuck->running of 4 ", "done stuck->running of 4 "}},
			{"skip where it is", flow.Bulk{Filter: cart, Order: flow.OrderSkip, With: flow.Intervention{Step: "work"}}, []string{"done stuck->done of 2 ", "done stuck->done of 2 "}},
			{"skip again", flow.Bulk{Filter: cart, Order: flow.OrderSkip, With: flow.Intervention{Step: "work"}}, nil},
			{"a secret", flow.Bulk{Filter: flow.Filter{Params: map[string]string{"password": "geheim"}}, Order: flow.OrderCancel}, nil},
			{"no such order", flow.Bulk{Filter: cart, Order: "explode"}, []string{`error: flow: explode in bulk: invalid: there is no order "explode"`}},
		} {
			if diff := cmp.Diff(one.want, bulked(w.T, w.Engine, one.bulk)); diff != "" {
				w.Errorf("%s: %s", one.name, diff)
			}
			synctest.Wait()
		}
		for i, id := range ids {
			if got, want := w.Get(id).State, []flow.State{flow.Done, flow.Stuck}[i%2]; got != want {
				w.Errorf("execution %d is %s, want %s", i, got, want)
			}
		}
	})
}

// What ended longer ago than it is kept goes with its logs, per flow; what is open stays, and so does a sub-flow of what is open.
func TestRetention(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tools := flow.NewTools()
		flow.Func(tools, "say", func(ctx context.Context, _ struct{}) (struct{}, error) {
			flow.Logf(ctx, "hello")
			return struct{}{}, nil
		}, flow.WithEffect(flow.Pure))
		flow.Func(tools, "fail", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, errors.New("no") })
		registry := prometheus.NewRegistry()
		store := memstore.New()
		engine, err := flow.New(flow.Config{
			Store: store, Tools: tools, LogDir: logs, Metrics: registry,
			Retention: flow.Retention{Keep: 24 * time.Hour, Flows: map[string]time.Duration{"short": time.Hour, "ever": 0}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		ids := map[string]string{}
		for name, steps := range map[string]string{
			"short": "{name: one, tool: say}", "ever": "{name: one, tool: say}", "other": "{name: one, tool: say}",
			"open": "{name: sub, flow: short}, {name: stay, tool: fail, on_failure: pause}",
		} {
			save(t, engine, "flow: "+name+"\nsteps: ["+steps+"]\n")
		}
		for _, name := range []string{"short", "ever", "other", "open"} {
			ids[name] = begin(t, engine, name, nil)
		}
		synctest.Wait()
		children, err := store.List(t.Context(), flow.Filter{Parent: ids["open"]})
		if err != nil || len(children) != 1 || children[0].State != flow.Done {
			t.Fatalf("sub-flows: %v, %v", children, err)
		}
		ids["sub"] = children[0].ID
		stand := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			var got []string
			for _, name := range []string{"short", "ever", "other", "open", "sub"} {
				_, err := engine.Get(t.Context(), ids[name])
				_, logged := os.Stat(filepath.Join(logs, ids[name]))
				switch {
				case err == nil && (logged == nil || name == "open"):
					got = append(got, name)
				case !errors.Is(err, flow.ErrNotFound) || logged == nil:
					t.Errorf("%s: %v, and its logs: %v", name, err, logged)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s", diff)
			}
		}
		stand(30*time.Minute, "short", "ever", "other", "open", "sub")
		stand(time.Hour, "ever", "other", "open", "sub")
		var rehearsed []string
		for one, err := range engine.Prune(t.Context(), flow.PruneOptions{Flow: "other", Keep: time.Minute, Rehearse: true}) {
			if err != nil {
				t.Fatal(err)
			}
			rehearsed = append(rehearsed, one.Flow)
		}
		if diff := cmp.Diff([]string{"other"}, rehearsed); diff != "" {
			t.Error(diff)
		}
		stand(0, "ever", "other", "open", "sub")
		stand(24*time.Hour, "ever", "open", "sub")
		if err := engine.Skip(t.Context(), ids["open"], flow.Intervention{Step: "stay", Actor: "ann"}); err != nil {
			t.Fatal(err)
		}
		stand(10*time.Minute, "ever", "open")
		stand(25*time.Hour, "ever")
		if n := testutil.CollectAndCount(registry, "zhiyun_flow_removed_total"); n != 1 {
			t.Errorf("%d metrics of what was removed", n)
		}
		if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
	})
}

// Logs are kept whole up to a bound, followed live, and struck of secrets wherever a piece ends.
func TestLogs(t *testing.T) {
	t.Parallel()
	const secret = "correct horse \"battery\""
	dir := t.TempDir()
	tools := flow.NewTools()
	next := make(chan string)
	tools.Handle(flow.Manifest{Name: "talk", Effect: flow.Pure}, func(_ context.Context, call flow.Call) flow.Result {
		for text := range next {
			call.Log([]byte(text))
		}
		return flow.Result{Output: json.RawMessage("{}"), Logs: "the end"}
	})
	tools.Handle(flow.Manifest{Name: "short", Effect: flow.Pure}, func(context.Context, flow.Call) flow.Result {
		return flow.Result{Output: json.RawMessage("{}"), Logs: "only the end of " + secret + "\n"}
	})
	var heard strings.Builder
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools, LogDir: dir, LogLimit: 1000, OnLog: func(_ flow.Call, p []byte) { heard.Write(p) }})
	save(t, engine, "flow: f\nparams: {password: secret}\nsteps: [{name: talk, tool: talk}, {name: short, tool: short}]\n")
	id := begin(t, engine, "f", map[string]any{"password": secret})
	pieces := make(chan string)
	go func() { // ends with the execution; the test reads until it has
		defer close(pieces)
		for piece, err := range engine.Logs(t.Context(), id, flow.LogFilter{Follow: true}) {
			if err != nil {
				pieces <- "error: " + err.Error()
				return
			}
			pieces <- fmt.Sprintf("%s/%d %s", piece.Step, piece.Attempt, piece.Text)
		}
	}()
	for _, one := range []struct{ say, want string }{
		{"one\n", "talk/1 one\n"},
		{"two correct horse \"bat", ""},
		{"tery\" and on\n", "talk/1 two ****** and on\n"},
		{"json correct horse \\\"battery\\\"\nno correct", "talk/1 json ******\n"},
		{" answer\n", "talk/1 no correct answer\n"},
	} {
		next <- one.say
		if one.want == "" {
			continue
		}
		if got := <-pieces; got != one.want {
			t.Errorf("after %q came %q, want %q", one.say, got, one.want)
		}
	}
	next <- strings.Repeat("x", 2000)
	close(next)
	var rest strings.Builder
	for piece := range pieces {
		rest.WriteString(piece)
	}
	for _, want := range []string{"bytes more were not kept]", "short/1 only the end of ******\n"} {
		if !strings.Contains(rest.String(), want) {
			t.Errorf("no %q in %q", want, rest.String())
		}
	}
	if heard := heard.String(); strings.Contains(heard, "battery") || !strings.Contains(heard, "two ****** and on") {
		t.Errorf("OnLog got %q", heard)
	}
	var one []string
	for piece, err := range engine.Logs(t.Context(), id, flow.LogFilter{Step: "short"}) {
		if err != nil {
			t.Fatal(err)
		}
		one = append(one, piece.Step)
	}
	if diff := cmp.Diff([]string{"short"}, one); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "nobody", "../" + id, ".."} {
		for _, err := range engine.Logs(t.Context(), bad, flow.LogFilter{}) {
			if !errors.Is(err, flow.ErrNotFound) {
				t.Errorf("logs of %q: %v, want ErrNotFound", bad, err)
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), "battery") || len(content) > 1100 {
			t.Errorf("%s has %d bytes, and %q", path, len(content), content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without a folder for logs, their ends come from the history.
func TestLogsOfTheHistory(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "talk", Effect: flow.Pure}, func(context.Context, flow.Call) flow.Result {
			return flow.Result{Error: &flow.Error{Code: "bad"}, Logs: "first\n"}
		}, func(context.Context, flow.Call) flow.Result {
			return flow.Result{Output: json.RawMessage("{}"), Logs: "second\n"}
		})
		id := w.Start("flow: f\nsteps: [{name: talk, tool: talk, retry: {attempts: 2}}]\n", nil)
		w.End(id)
		var got []string
		for piece, err := range w.Engine.Logs(w.Context(), id, flow.LogFilter{}) {
			if err != nil {
				w.Fatal(err)
			}
			got = append(got, fmt.Sprint(piece.Attempt, " ", piece.Text))
		}
		if diff := cmp.Diff([]string{"1 first\n", "2 second\n"}, got); diff != "" {
			w.Error(diff)
		}
	})
}

// Where the time of an execution went: attempts, waits between them, side by side.
func TestTiming(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "slow", Effect: flow.Pure}, flowtest.After(time.Minute, flowtest.Fails("bad", "")), flowtest.After(2*time.Minute, flowtest.Returns("{}")))
		w.Fake(flow.Manifest{Name: "wide", Effect: flow.Pure}, flowtest.After(time.Minute, flowtest.Returns("{}")))
		id := w.Start(`
flow: f
steps:
  - {name: slow, tool: slow, retry: {attempts: 2, backoff: 3m, max: 3m}}
  - {name: wide, tool: wide, each: "[1, 2, 3, 4]", parallel: 2}
`, nil)
		w.End(id)
		got, err := w.Engine.Timing(w.Context(), id)
		if err != nil {
			w.Fatal(err)
		}
		want := flow.Timing{Execution: id, State: flow.Done, Wall: 8 * time.Minute, Steps: []flow.StepTiming{
			{Step: "slow", Attempts: 2, Wall: 6 * time.Minute, Ran: 3 * time.Minute, Waited: 3 * time.Minute, Work: 3 * time.Minute, Share: 0.75},
			{Step: "wide", Attempts: 4, Wall: 2 * time.Minute, Ran: 2 * time.Minute, Work: 4 * time.Minute, Share: 0.25},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Error(diff)
		}
	})
}

// Who follows logs does not see what has become a secret since he began.
func TestLogsAreStruckOfWhatBecomesASecret(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	next := make(chan string)
	tools.Handle(flow.Manifest{Name: "talk", Effect: flow.Pure}, func(_ context.Context, call flow.Call) flow.Result {
		for text := range next {
			call.Log([]byte(text))
		}
		return flow.Result{Output: json.RawMessage("{}")}
	})
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools, LogDir: t.TempDir()})
	const document = "flow: f\nparams: {password: %s}\nsteps: [{name: talk, tool: talk}]\n"
	save(t, engine, fmt.Sprintf(document, "string"))
	id := begin(t, engine, "f", map[string]any{"password": "correct horse"})
	pieces := make(chan string)
	go func() { // ends with the execution; the test reads until it has
		defer close(pieces)
		for piece, err := range engine.Logs(t.Context(), id, flow.LogFilter{Follow: true}) {
			pieces <- fmt.Sprint(piece.Text, err)
		}
	}()
	next <- "no secret yet: correct horse\n"
	if got := <-pieces; got != "no secret yet: correct horse\n<nil>" {
		t.Errorf("it began with %q", got)
	}
	save(t, engine, fmt.Sprintf(document, "secret"))
	if err := engine.Migrate(t.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
		t.Fatal(err)
	}
	next <- "now: correct horse\n"
	close(next)
	var rest strings.Builder
	for piece := range pieces {
		rest.WriteString(piece)
	}
	if got := rest.String(); got != "now: ******\n<nil>" {
		t.Errorf("it went on with %q, want the secret struck out", got)
	}
}
