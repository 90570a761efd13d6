package trigger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
)

const document = `
flow: report
params: {city: {type: string, default: ""}, count: {type: int, default: 1, max: 9}}
steps: [{name: work, tool: slow}]
`

// world is an engine with the flow report, whose step takes ten minutes, and a controller that leads until stop.
type world struct {
	engine  *flow.Engine
	store   trigger.Store
	control *trigger.Controller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	tools := flow.NewTools()
	flow.Func(tools, "slow", func(ctx context.Context, _ struct{}) (struct{}, error) {
		select {
		case <-time.After(10 * time.Minute):
		case <-ctx.Done():
		}
		return struct{}{}, ctx.Err()
	}, flow.WithEffect(flow.Keyed))
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Save(t.Context(), []byte(document)); err != nil {
		t.Fatal(err)
	}
	w := &world{engine: engine, store: trigger.NewMemory()}
	w.control = w.another(t)
	run(t, engine.Run)
	run(t, w.control.Run)
	synctest.Wait()
	return w
}

func (w *world) another(t *testing.T) *trigger.Controller {
	t.Helper()
	c, err := trigger.New(trigger.Config{Store: w.store, Engine: w.engine})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs fn until the test ends, or stop is called.
func run(t *testing.T, fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

func (w *world) apply(t *testing.T, text string) trigger.Status {
	t.Helper()
	parsed, err := trigger.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	status, err := w.control.Apply(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// outcomes are a trigger's history, the oldest first.
func (w *world) outcomes(t *testing.T, name string) (out []trigger.Outcome) {
	t.Helper()
	history, err := w.control.History(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(history) - 1; i >= 0; i-- {
		out = append(out, history[i].Outcome)
	}
	return out
}

func (w *world) started(t *testing.T) int {
	t.Helper()
	all, _, err := w.engine.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A schedule starts its flow when it is time, once, though two lead for a while; what passed while nobody led is dealt with by its policy.
func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // virtual time begins on 2000-01-01 at 00:00 UTC
		w := newWorld(t)
		w.apply(t, `{trigger: hourly, flow: report, params: {count: 2}, schedule: {cron: "0 * * * *", missed: once}}`)
		one, two := w.another(t), w.another(t)
		stop, stopTwo := run(t, one.Lead), run(t, two.Lead)
		time.Sleep(3*time.Hour + time.Minute)
		if n := w.started(t); n != 3 {
			t.Fatalf("%d started in three hours", n)
		}
		stop()
		stopTwo()
		time.Sleep(4 * time.Hour)
		run(t, w.another(t).Lead)
		synctest.Wait()
		want := []trigger.Outcome{"started", "started", "started", "missed", "started"} // 4, 5 and 6; then 7, on time
		if diff := cmp.Diff(want, w.outcomes(t, "hourly")); diff != "" {
			t.Error(diff)
		}
		status, err := w.control.Get(t.Context(), "hourly")
		if err != nil || !status.Next.Equal(time.Date(2000, 1, 1, 8, 0, 0, 0, time.UTC)) {
			t.Errorf("next is %s, %v", status.Next, err)
		}
		x, err := w.engine.Get(t.Context(), status.State.Execution)
		if err != nil || x.Actor != "trigger:hourly" || x.Params["count"] != int64(2) || !strings.Contains(x.Reason, "due 2000-01-01T07:00:00Z") {
			t.Errorf("%+v, %v", x, err)
		}
	})
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, overlap := range []string{"skip", "allow", "wait"} {
			w.apply(t, fmt.Sprintf(`{trigger: %[1]s, flow: report, schedule: {cron: "*/4 * * * *", overlap: %[1]s}}`, overlap))
		}
		run(t, w.control.Lead)
		time.Sleep(19*time.Minute + 30*time.Second) // due at 4, 8, 12 and 16; one takes 10 minutes
		for name, want := range map[string][]trigger.Outcome{
			"skip": {"started", "skipped", "skipped", "started"}, "allow": {"started", "started", "started", "started"},
			"wait": {"started", "skipped", "started"}, // at 4; at 8 one waits, until 14; at 12 it does still; at 16 another waits
		} {
			if diff := cmp.Diff(want, w.outcomes(t, name)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

func TestPauseFireAndDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run(t, w.control.Lead)
		w.apply(t, `{trigger: hourly, flow: report, schedule: {cron: "0 * * * *"}}`)
		if status, err := w.control.Pause(t.Context(), "hourly", "ann", "sale"); err != nil || status.State.Paused.Reason != "sale" || !status.Next.IsZero() {
			t.Fatal(status, err)
		}
		time.Sleep(90 * time.Minute)
		if n := w.started(t); n != 0 {
			t.Errorf("%d started while it was paused", n)
		}
		id, err := w.control.Fire(t.Context(), "hourly", trigger.Order{Actor: "ann", Reason: "now", As: []string{"ann"}})
		if err != nil {
			t.Fatal(err)
		}
		if x, err := w.engine.Get(t.Context(), id); err != nil || x.Actor != "ann" || x.Reason != "now" {
			t.Error(x, err)
		}
		if _, err := w.control.Resume(t.Context(), "hourly"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if diff := cmp.Diff([]trigger.Outcome{"started", "missed", "started"}, w.outcomes(t, "hourly")); diff != "" {
			t.Error(diff)
		}
		if err := w.control.Delete(t.Context(), "hourly"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if n := w.started(t); n != 2 {
			t.Errorf("%d started in all", n)
		}
		if _, err := w.control.Get(t.Context(), "hourly"); !errors.Is(err, trigger.ErrNotFound) {
			t.Error(err)
		}
	})
}

const secret = "0123456789abcdef-secret"

const hook = `
trigger: alert
flow: report
params: {city: "${body.site.city}", count: "${int(body.count)}"}
webhook: {secret: ` + secret + `, when: "body.severity == 'critical'", max_body: 300}
`

func TestWebhook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(t, hook)
		synctest.Wait()
		door := w.control.Handler()
		call := func(path, signature, body string) *httptest.ResponseRecorder {
			request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			request.Header.Set(trigger.SignatureHeader, signature)
			got := httptest.NewRecorder()
			door.ServeHTTP(got, request)
			return got
		}
		good := `{"severity": "critical", "site": {"city": "shenzhen"}, "count": 3}`
		now := func(body string) string { return trigger.Sign(secret, time.Now(), []byte(body)) }
		first := now(good)
		got := call("/hooks/alert", first, good)
		if got.Code != http.StatusAccepted {
			t.Fatal(got.Code, got.Body)
		}
		id := strings.Split(got.Body.String(), `"`)[3]
		x, err := w.engine.Get(t.Context(), id)
		if err != nil || x.Params["city"] != "shenzhen" || x.Params["count"] != int64(3) || x.Actor != "trigger:alert" {
			t.Fatal(x.Params, err)
		}
		time.Sleep(time.Minute)
		parts := strings.Split(first, ",")
		for _, replayed := range []string{first, parts[1] + "," + parts[0], first + ",v2=x"} {
			if again := call("/hooks/alert", replayed, good); again.Code != http.StatusAccepted || !strings.Contains(again.Body.String(), id) {
				t.Errorf("the same call again: %d %s", again.Code, again.Body)
			}
		}
		calm := `{"severity": "info"}`
		broken := `{"severity": "critical", "site": {"city": "x"}, "count": 99}`
		for _, test := range []struct {
			name, path, signature, body string
			code                        int
			says                        string
		}{
			{"condition", "/hooks/alert", now(calm), calm, 200, "when is false"},
			{"parameters", "/hooks/alert", now(broken), broken, 400, "count"},
			{"missing field", "/hooks/alert", now(`{"severity": "critical"}`), `{"severity": "critical"}`, 400, "params"},
			{"not JSON", "/hooks/alert", now("x"), "x", 400, "not JSON"},
			{"no object", "/hooks/alert", now("[]"), "[]", 400, "must be a JSON object"},
			{"no signature", "/hooks/alert", "", good, 401, "signature"},
			{"another body", "/hooks/alert", now(calm), good, 401, "signature"},
			{"another secret", "/hooks/alert", trigger.Sign("another secret, long", time.Now(), []byte(good)), good, 401, "signature"},
			{"too old", "/hooks/alert", trigger.Sign(secret, time.Now().Add(-6*time.Minute), []byte(good)), good, 401, "too old"},
			{"too new", "/hooks/alert", trigger.Sign(secret, time.Now().Add(6*time.Minute), []byte(good)), good, 401, "too old"},
			{"another time", "/hooks/alert", strings.Replace(now(good), "t=9", "t=8", 1), good, 401, "signature"},
			{"nobody", "/hooks/nobody", now(good), good, 401, "no such webhook"},
			{"too large", "/hooks/alert", now(good), good + strings.Repeat(" ", 300), 413, "300 bytes"},
		} {
			if got := call(test.path, test.signature, test.body); got.Code != test.code || !strings.Contains(got.Body.String(), test.says) {
				t.Errorf("%s: %d %s", test.name, got.Code, got.Body)
			}
		}
		if n := w.started(t); n != 1 {
			t.Errorf("%d executions", n)
		}
		if _, err := w.control.Pause(t.Context(), "alert", "ann", "storm"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := call("/hooks/alert", now(good), good); got.Code != http.StatusConflict || !strings.Contains(got.Body.String(), "storm") {
			t.Errorf("paused: %d %s", got.Code, got.Body)
		}
		if id, err := w.control.Fire(t.Context(), "alert", trigger.Order{Actor: "ann", As: []string{"ann"}, Body: []byte(good)}); err != nil || id == "" {
			t.Error(err)
		}
	})
}

// Two calls with the same key start one execution, whatever else they say.
func TestWebhookKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(t, `{trigger: keyed, flow: report, webhook: {secret: `+secret+`, key: "${body.id}"}}`)
		synctest.Wait()
		for i := range 3 {
			body := fmt.Sprintf(`{"id": 7, "try": %d}`, i)
			request := httptest.NewRequest(http.MethodPost, "/hooks/keyed", bytes.NewBufferString(body))
			request.Header.Set(trigger.SignatureHeader, trigger.Sign(secret, time.Now(), []byte(body)))
			got := httptest.NewRecorder()
			w.control.Handler().ServeHTTP(got, request)
			if got.Code != http.StatusAccepted {
				t.Fatal(got.Code, got.Body)
			}
		}
		if n := w.started(t); n != 1 {
			t.Errorf("%d executions", n)
		}
	})
}

// A secret is stored and never shown; applied as it is shown, it stays.
func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		status := w.apply(t, hook)
		all, err := w.control.List(t.Context())
		if err != nil || status.Webhook.Secret != trigger.Hidden || all[0].Webhook.Secret != trigger.Hidden {
			t.Fatal(status, all, err)
		}
		if _, err := w.control.Apply(t.Context(), all[0].Trigger); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		body := `{"severity": "critical", "site": {"city": "x"}, "count": 1}`
		request := httptest.NewRequest(http.MethodPost, "/hooks/alert", strings.NewReader(body))
		request.Header.Set(trigger.SignatureHeader, trigger.Sign(secret, time.Now(), []byte(body)))
		got := httptest.NewRecorder()
		w.control.Handler().ServeHTTP(got, request)
		if got.Code != http.StatusAccepted {
			t.Error(got.Code, got.Body)
		}
		fresh := all[0].Trigger
		fresh.Name = "fresh"
		if _, err := w.control.Apply(t.Context(), fresh); !errors.Is(err, trigger.ErrInvalid) {
			t.Error(err)
		}
	})
}

// Every fault is told at once, and what the flow would not take is refused when the trigger is applied.
func TestFaults(t *testing.T) {
	t.Parallel()
	_, err := trigger.Parse([]byte(`{trigger: "A B", schedule: {cron: "99 * * * *", missed: some, overlap: some, jitter: 48h}}`))
	for _, want := range []string{`"A B" is no name`, "flow is missing", "99", `missed is "some"`, `overlap is "some"`, "jitter is 48h"} {
		if !errors.Is(err, trigger.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	_, err = trigger.Parse([]byte(`{trigger: a, flow: f, params: {x: "${body.}"}, webhook: {secret: short, window: 2h, max_body: 9999999, when: "body +", key: "${"}}`))
	for _, want := range []string{"secret has 5 bytes", "window is 2h", "max_body is 9999999", "when", "key", "params"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	for _, text := range []string{"", "trigger: a\nflow: f\n", "trigger: a\nflow: f\nwhat: x\n", "{trigger: a, flow: f, params: {x: \"${body.y}\"}, schedule: {cron: \"* * * * *\"}}",
		"trigger: a\n---\ntrigger: b\n"} {
		if _, err := trigger.Parse([]byte(text)); !errors.Is(err, trigger.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.engine.Save(t.Context(), []byte("flow: guarded\nstart: {by: [ann]}\nsteps: [{name: work, tool: slow}]\n")); err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]string{
			`{trigger: a, flow: guarded, schedule: {cron: "* * * * *"}}`:                                       "started by ann, not by trigger:a",
			`{trigger: a, flow: guarded, webhook: {secret: ` + secret + `}}`:                                   "add trigger:a to its start.by",
			`{trigger: a, flow: none, schedule: {cron: "* * * * *"}}`:                                          "none",
			`{trigger: a, flow: report, params: {count: 10}, schedule: {cron: "* * * * *"}}`:                   "count",
			`{trigger: a, flow: report, params: {cities: x}, webhook: {secret: ` + secret + `}}`:               "no such parameter",
			`{trigger: a, flow: report, params: {count: two}, webhook: {secret: ` + secret + `}}`:              `params.count: invalid: parameter "count" is a text, want int`,
			`{trigger: a, flow: report, params: {count: 10}, webhook: {secret: ` + secret + `}}`:               "want at most",
			`{trigger: a, flow: report, params: {count: "${body.n} days"}, webhook: {secret: ` + secret + `}}`: "it is of the type string",
			`{trigger: a, flow: report, params: {count: "${body.n == 1}"}, webhook: {secret: ` + secret + `}}`: "it is of the type boolean",
			`{trigger: a, flow: report, params: {city: ["${body.city}"]}, webhook: {secret: ` + secret + `}}`:  "it is of the type array",
			`{trigger: a, flow: report, params: {city: "x", other: 1}, schedule: {cron: "0 0 1 1 *"}}`:         "other",
		} {
			parsed, err := trigger.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.control.Apply(t.Context(), parsed); !errors.Is(err, trigger.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", text, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(hook))
	f.Add([]byte(`{trigger: a, flow: f, schedule: {cron: "*/5 * * * *", zone: Asia/Shanghai}}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		if _, err := trigger.Parse(document); err != nil && !errors.Is(err, trigger.ErrInvalid) {
			t.Error(err)
		}
	})
}
