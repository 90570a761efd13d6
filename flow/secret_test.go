package flow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// told is everything that an engine gives, gathered.
type told struct {
	mu    sync.Mutex // guards texts
	texts map[string]string
}

func (l *told) add(where string, value any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, is := value.(string)
	if !is {
		encoded, err := json.Marshal(value)
		text = fmt.Sprint(string(encoded), err)
	}
	l.texts[where] += text + "\n"
}

// A flow that is full of secrets, in inputs, outputs, logs, errors, reasons, notices, locks of words and digits: nothing that the engine gives shows one.
func TestNothingShowsASecret(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]string{"words": "correct \"horse\" <battery>", "digits": "2026", "unicode": "密码-staple"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nothingShows(t, secret)
		})
	}
}

func nothingShows(t *testing.T, secret string) {
	got := told{texts: map[string]string{}}
	dir := t.TempDir()
	var lines bytes.Buffer // written by the engine alone, which has ended when it is read
	registry := prometheus.NewRegistry()
	tools := flow.NewTools()
	type text struct {
		Text string `json:"text"`
	}
	flow.Func(tools, "say", func(ctx context.Context, in text) (text, error) {
		flow.Logf(ctx, "%s", "saying "+in.Text)
		return text{"said " + in.Text}, nil
	}, flow.WithEffect(flow.Keyed), flow.WithUndo("unsay"))
	flow.Func(tools, "unsay", func(_ context.Context, in struct {
		text
		Done text `json:"done"`
	}) (text, error) {
		return in.Done, nil
	}, flow.WithEffect(flow.Keyed))
	flow.Func(tools, "refuse", func(_ context.Context, in text) (text, error) { return text{}, errors.New("no to " + in.Text) }, flow.WithEffect(flow.Keyed))
	notices := make(notifier, 100)
	engine, err := flow.New(flow.Config{
		Store: memstore.New(), Tools: tools, Notifier: notices, LogDir: dir, Metrics: registry, Logger: slog.New(slog.NewTextHandler(&lines, nil)),
		OnEvent: func(e flow.Event) { got.add("OnEvent", e) }, OnLog: func(_ flow.Call, p []byte) { got.add("OnLog", string(p)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }() // awaited below
	save(t, engine, "flow: sub\nparams: {open: string}\nsteps: [{name: one, tool: say, with: {text: \"${params.open}\"}}]\n")
	save(t, engine, "flow: safe\nparams: {hidden: secret}\nsteps: [{name: one, tool: say, with: {text: \"${params.hidden}\"}}]\n")
	save(t, engine, `
flow: f
params: {password: secret, plain: string}
steps:
  - {name: say, tool: say, with: {text: "${params.password}"}}
  - {name: safe, flow: safe, with: {hidden: "${params.password}"}}
  - {name: tell, notify: {text: "it is ${steps.say.text}", severity: warning}}
  - {name: many, tool: say, each: "[params.password, 'b']", with: {text: "x${item}y"}}
  - {name: refuse, tool: refuse, with: {text: "${params.password}"}, on_failure: pause}
  - {name: open, flow: sub, with: {open: "${params.password}"}}
`)
	params := map[string]any{"password": secret, "plain": "also " + secret}
	rehearsal, err := engine.RehearseStart(t.Context(), "f", params)
	got.add("RehearseStart", rehearsal)
	got.add("RehearseStart", fmt.Sprint(err))
	_, err = engine.Start(t.Context(), "f", map[string]any{"password": []any{secret}, "plain": 1})
	got.add("refused start", fmt.Sprint(err))
	id := begin(t, engine, "f", params, flow.By("ann"), flow.Because("since "+secret))
	until(t, engine, id, flow.EventStuck)
	look := func() {
		x, err := engine.Get(t.Context(), id)
		got.add("Get", x)
		got.add("Get", fmt.Sprint(err, x.Error))
		list, _, err := engine.List(t.Context(), flow.Filter{})
		got.add("List", list)
		got.add("List", fmt.Sprint(err))
		for event, err := range engine.History(t.Context(), id) {
			got.add("History", event)
			got.add("History", fmt.Sprint(event, err))
		}
		for _, one := range list {
			for piece, err := range engine.Logs(t.Context(), one.ID, flow.LogFilter{}) {
				got.add("Logs", piece)
				got.add("Logs", fmt.Sprint(err))
			}
			export, err := engine.Export(t.Context(), one.ID)
			got.add("Export", export)
			got.add("Export", fmt.Sprint(err))
			standing, err := engine.Standing(t.Context(), one.ID)
			got.add("Standing", fmt.Sprintf("%+v %v", standing, err))
		}
		timing, err := engine.Timing(t.Context(), id)
		got.add("Timing", fmt.Sprintf("%+v %v", timing, err))
	}
	look()
	for line, err := range engine.Bulk(t.Context(), flow.Bulk{Filter: flow.Filter{Flow: "f"}, Order: flow.OrderFail, With: flow.Intervention{Step: "refuse", Reason: "for " + secret}, Rehearse: true}) {
		got.add("Bulk", fmt.Sprintf("%+v %v", line, err))
	}
	for _, order := range flow.Orders() {
		events, err := engine.RehearseOrder(t.Context(), id, order, flow.Intervention{Step: "refuse", Actor: "bob", Reason: "because " + secret})
		got.add("RehearseOrder", events)
		got.add("RehearseOrder", fmt.Sprint(err))
	}
	if err := engine.Skip(t.Context(), id, flow.Intervention{Step: "refuse", Output: json.RawMessage(`{"text":"by hand"}`), Actor: "bob", Reason: "because " + secret}); err != nil {
		t.Fatal(err)
	}
	x, err := engine.Wait(t.Context(), id)
	if err != nil || x.State != flow.Failed || !strings.Contains(x.Error.Error(), "would show a secret") {
		t.Errorf("it is %s, %v, %v: want it to fail when it hands the secret on in the open", x.State, x.Error, err)
	}
	got.add("Wait", x)
	look()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	close(notices)
	for notice := range notices {
		got.add("Notify", notice)
	}
	got.add("Logger", lines.String())
	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	got.add("metrics", metrics.Body.String())
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			content, _ := os.ReadFile(path)
			got.add("log files", string(content))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	for where, all := range got.texts {
		for _, form := range []string{secret, string(quoted[1 : len(quoted)-1])} {
			for line := range strings.Lines(all) {
				if where == "log files" || !isDigits(secret) {
					if strings.Contains(line, form) {
						t.Errorf("%s shows it: %s", where, line)
					}
					continue
				}
				// Digits stand in times and IDs: look where the tools and the flow have put them.
				for _, around := range []string{"said " + form, "saying " + form, "no to " + form, "since " + form, "because " + form, "for " + form, "also " + form, "x" + form + "y", `:"` + form + `"`, "is " + form} {
					if strings.Contains(line, around) {
						t.Errorf("%s shows it: %s", where, line)
					}
				}
			}
		}
	}
	for _, where := range []string{"Get", "List", "History", "Logs", "Export", "Notify", "Logger", "OnEvent", "OnLog", "log files", "RehearseStart", "RehearseOrder"} {
		if !strings.Contains(got.texts[where], "******") {
			t.Errorf("%s has nothing struck out; is it looked at? %s", where, got.texts[where])
		}
	}
}

func isDigits(text string) bool { return strings.Trim(text, "0123456789") == "" }
