package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// What the verbs show are fields that the documents have.
func TestDoctorAndPauseSayWhatTheyFound(t *testing.T) {
	w := controltest.New(t)
	out, err := run(t, "doctor", "--server", w.Target)
	if err != nil || !strings.Contains(out, "not paused") {
		t.Errorf("doctor of a sound server: %v\n%s", err, out)
	}
	out, err = run(t, "pause", "--reason", "incident 42", "--server", w.Target)
	if err != nil || !strings.Contains(out, "operator:") || strings.Count(out, "-") > 3 { // no module, and the dashes of a date
		t.Errorf("pause: %v\n%s", err, out)
	}
	out, err = run(t, "doctor", "--server", w.Target)
	if err == nil || !strings.Contains(err.Error(), "automation") || !strings.Contains(out, "incident 42") {
		t.Errorf("doctor of a paused server: %v\n%s", err, out)
	}
}

func TestSecretsAreNotTakenFromTheCommandLine(t *testing.T) {
	_, err := run(t, "config", "set", "db.password", "hunter2", "--secret", "--of", "m", "--server", "http://127.0.0.1:1")
	if exit, ok := err.(cli.ExitCoder); !ok || exit.ExitCode() != exitUsage {
		t.Errorf("config set --secret: %v, want exit code 2", err)
	}
	value, err := paramValue(strings.NewReader("hunter2\n"), "-", true)
	if err != nil || string(value) != "hunter2" {
		t.Errorf("from standard input: %q, %v", value, err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := given([]string{"password=@" + file, "count=2", "text=@@home"})
	if diff := cmp.Diff(map[string]string{"password": "hunter2", "count": "2", "text": "@home"}, got); err != nil || diff != "" {
		t.Errorf("parameters: %v %s", err, diff)
	}
	if err := os.WriteFile(file, []byte("p\xe4ss"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := given([]string{"password=@" + file}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a secret of other bytes: %q, %v", got, err)
	}
	if err := os.Truncate(file, rpc.MaxMessage+1); err != nil {
		t.Fatal(err)
	}
	if _, err := given([]string{"password=@" + file}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a secret that no message holds: %v", err)
	}
}

func TestAServiceThatIsNotThereIsAnError(t *testing.T) {
	w := controltest.New(t)
	for _, verb := range []string{"resolve", "explain"} {
		_, err := run(t, "l5", verb, "shop.cart", "--server", w.Target)
		if exit, ok := err.(cli.ExitCoder); err == nil || ok && exit.ExitCode() == exitUsage || !strings.Contains(err.Error(), "no instance of shop.cart") {
			t.Errorf("%s of a service without instances: %v", verb, err)
		}
	}
}

func TestATriggerIsShownWhole(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte("flow: hello\nsteps: [{name: say, notify: {text: hello}}]\n")); err != nil {
		t.Fatal(err)
	}
	nightly, err := trigger.Parse([]byte("trigger: nightly\nflow: hello\nschedule: {cron: \"30 2 * * *\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Triggers.Apply(t.Context(), nightly); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "trigger", "show", "nightly", "--server", w.Target)
	if err != nil || !strings.Contains(out, "cron: 30 2 * * *") {
		t.Errorf("trigger show: %v\n%s", err, out)
	}
}

func TestNothingRunsInWhatHasEnded(t *testing.T) {
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte(holdFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flow.Start(t.Context(), "hold", nil, flow.By("test"))
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range w.Flow.Watch(t.Context(), id) { // a step that has not begun is not stopped
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == flow.EventAttemptStarted {
			break
		}
	}
	if out, err := run(t, "flow", "cancel", id, "--server", w.Target); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := w.Flow.Wait(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "flow", "show", id, "--server", w.Target)
	if err != nil || strings.Contains(out, "running") || !strings.Contains(out, "stopped") {
		t.Errorf("flow show of what was cancelled: %v\n%s", err, out)
	}
}

// A listing comes in pages, whatever their number; --limit says how much of it.
func TestGetGoesThroughAllPages(t *testing.T) {
	w := controltest.New(t)
	const sites = 2300
	var site strings.Builder
	for i := range sites {
		fmt.Fprintf(&site, "---\n{kind: site, name: s%05d, city: sz}\n", i)
	}
	w.Apply(t, site.String())
	for limit, want := range map[string]int{"0": sites, "1": 1, "1000": 1000, "1001": 1001} {
		out, err := run(t, "get", "sites", "--limit", limit, "-o", "json", "--server", w.Target)
		if err != nil {
			t.Fatal(err)
		}
		var items []struct{ Name string }
		if err := json.Unmarshal([]byte(out), &items); err != nil || len(items) != want || items[want-1].Name != fmt.Sprintf("s%05d", want-1) {
			t.Errorf("--limit %s: %d items, %v; want %d in order", limit, len(items), err, want)
		}
	}
}
