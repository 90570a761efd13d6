package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// post is one exchange as any language can make it.
func post(t *testing.T, target string, request map[string]any) (int, map[string]any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(target+"/zhiyun.flow.v1.DispatchService/Exchange", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return answer.StatusCode, out
}

func TestExchangeTellsAgainWhatWasNotHeard(t *testing.T) {
	t.Parallel()
	d := dispatcher(t, dispatch.Config{Grace: time.Minute, Authorize: func(_ context.Context, device string) error {
		if device != "d1" {
			return fmt.Errorf("this peer does not speak for %s", device)
		}
		return nil
	}})
	target, _ := serve(t, d, "127.0.0.1:0")
	for name, tc := range map[string]struct {
		request map[string]any
		status  int
	}{
		"no hello":        {map[string]any{}, 400},
		"another device":  {map[string]any{"say": []any{map[string]any{"hello": map[string]any{"device": "d2"}}}}, 403},
		"unknown session": {map[string]any{"session": "x"}, 404},
	} {
		if status, answer := post(t, target, tc.request); status != tc.status {
			t.Errorf("%s: status %d (%v), want %d", name, status, answer, tc.status)
		}
	}
	results := make(chan flow.Result, 1)
	var wait sync.WaitGroup
	t.Cleanup(wait.Wait)
	wait.Go(func() {
		results <- d.Run(t.Context(), flow.Call{ID: "a-1", Device: "d1", Tool: "touch", Key: "k", Input: []byte(`{}`), Timeout: time.Minute})
	})
	_, first := post(t, target, map[string]any{"say": []any{map[string]any{"hello": map[string]any{"device": "d1"}}}, "waitMs": 10_000})
	session := first["session"]
	told := func(answer map[string]any) (ids []string) {
		list, _ := answer["tell"].([]any)
		for _, message := range list {
			if run, ok := message.(map[string]any)["run"].(map[string]any); ok {
				ids = append(ids, run["id"].(string))
			}
		}
		return ids
	}
	for len(told(first)) == 0 { // the attempt may have come after the hello
		_, first = post(t, target, map[string]any{"session": session, "waitMs": 10_000})
	}
	// The answer was lost on its way: it is told again until it is confirmed.
	_, again := post(t, target, map[string]any{"session": session})
	if got := told(again); len(got) != 1 || got[0] != "a-1" {
		t.Fatalf("told %v again, want a-1", got)
	}
	if status, _ := post(t, target, map[string]any{"session": session, "heard": 99}); status != 400 {
		t.Errorf("hearing what was not told: status %d", status)
	}
	_, after := post(t, target, map[string]any{"session": session, "heard": again["told"], "say": []any{
		map[string]any{"finished": map[string]any{"id": "a-1", "output": []byte(`{"ok":true}`), "version": "3"}},
	}})
	if got := told(after); len(got) != 0 {
		t.Errorf("told %v after it was heard", got)
	}
	if result := <-results; result.Error != nil || string(result.Output) != `{"ok":true}` || result.Ran.Version != "3" {
		t.Errorf("%+v", result)
	}
	// A plan is not asked of a worker that would do it in earnest.
	if result := d.Run(t.Context(), flow.Call{ID: "a-2", Device: "d1", Tool: "touch", Plan: true}); result.Error == nil || result.Error.Code != flow.CodePlan {
		t.Errorf("%+v, want %s", result.Error, flow.CodePlan)
	}
	// Another worker of the device takes its place.
	post(t, target, map[string]any{"say": []any{map[string]any{"hello": map[string]any{"device": "d1"}}}})
	if status, _ := post(t, target, map[string]any{"session": session}); status != 404 {
		t.Errorf("the replaced session: status %d, want 404", status)
	}
}

// The example worker in Python runs a device's share of a flow: over a restart of the worker in the middle, nothing is lost or doubled.
func TestWorkerInPython(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("python3 is not installed; apt-get install python3")
		}
		t.Skip("python3 is not installed; apt-get install python3")
	}
	d := dispatcher(t, dispatch.Config{Grace: time.Minute})
	target, _ := serve(t, d, "127.0.0.1:0")
	dir := t.TempDir()
	program := filepath.Join(dir, "touch")
	script := "#!/bin/sh\necho begun >&2\necho \"$ZHIYUN_ATTEMPT\" >> " + dir + "/$ZHIYUN_DEVICE\nwhile [ ! -e " + dir + "/gate ]; do sleep 0.02; done\nprintf '{\"device\": \"%s\"}' \"$ZHIYUN_DEVICE\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	begin := func(name string) (stop func()) {
		worker := exec.Command("python3", "../../examples/worker/worker.py", target, name, filepath.Join(dir, "state-"+name), "touch="+program)
		var said bytes.Buffer
		worker.Stdout, worker.Stderr = &said, &said
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		stop = sync.OnceFunc(func() {
			_ = worker.Process.Kill()
			_ = worker.Wait()
			if said.Len() > 0 {
				t.Logf("worker %s: %s", name, said.String())
			}
		})
		t.Cleanup(stop)
		return stop
	}
	begin("d1")
	stop := begin("d2")
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Keyed})
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools, Remote: d})
	if err != nil {
		t.Fatal(err)
	}
	background(t, engine.Run)
	if _, err := engine.Save(t.Context(), []byte(remoteFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := engine.Start(t.Context(), "fan", map[string]any{"devices": []string{"d1", "d2"}})
	if err != nil {
		t.Fatal(err)
	}
	attempts := func(device string) string {
		data, _ := os.ReadFile(filepath.Join(dir, device))
		return strings.Join(strings.Fields(string(data)), " ")
	}
	waitFor(t, func() bool { return attempts("d1") == "1" && attempts("d2") == "1" })
	stop()
	begin("d2")
	waitFor(t, func() bool { return attempts("d2") == "1 2" })
	if err := os.WriteFile(filepath.Join(dir, "gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x := finish(t, engine, id)
	if got, want := string(x.Steps[0].Output), `{"items":[{"device":"d1"},{"device":"d2"}]}`; x.State != flow.Done || got != want {
		t.Fatalf("%s with %s, want %s", x.State, got, want)
	}
	if attempts("d1") != "1" || attempts("d2") != "1 2" || x.Steps[0].Tasks[0].Logs != "begun\n" {
		t.Errorf("attempts %q and %q, logs %q", attempts("d1"), attempts("d2"), x.Steps[0].Tasks[0].Logs)
	}
}
