package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/worker"
	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// background runs something until the returned stop is called, at the latest at the test's end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// serve serves a dispatcher and returns its URL.
func serve(t *testing.T, d *dispatch.Dispatcher, addr string) (target string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(d.Handler())
	server := transport.NewServer(mux)
	stop = background(t, func(ctx context.Context) error { return server.Serve(ctx, listener, 10*time.Millisecond) })
	return "http://" + listener.Addr().String(), stop
}

func dispatcher(t *testing.T, config dispatch.Config) *dispatch.Dispatcher {
	t.Helper()
	d, err := dispatch.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func runWorker(t *testing.T, config worker.Config) (stop func()) {
	t.Helper()
	w, err := worker.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return background(t, w.Run)
}

func finish(t *testing.T, engine *flow.Engine, id string) flow.Execution {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
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
	if !x.State.Ended() {
		t.Fatalf("execution is %s after a minute:\n%s", x.State, strings.Join(lines, "\n"))
	}
	t.Log(strings.Join(lines, "\n"))
	return x
}

const remoteFlow = `
flow: fan
params: {devices: "list<string>"}
steps:
  - name: touch
    tool: touch
    each: params.devices
    parallel: 3
    on: "${item}"
    with: {n: "${index}"}
    retry: {attempts: 2, backoff: 1ms}
`

// touch is a tool that appends a line to a file of its device and answers with the device's name.
func touch(dir string, body string) flow.Manifest {
	return flow.Manifest{
		Name: "touch", OnDevice: true, Effect: flow.Keyed,
		Command: []string{"/bin/sh", "-c", `echo "$ZHIYUN_ATTEMPT" >> "` + dir + `/$ZHIYUN_DEVICE"; ` + body + `; printf '{"device": "%s"}' "$ZHIYUN_DEVICE"`},
		Output:  json.RawMessage(`{"type": "object", "properties": {"device": {"type": "string"}}}`),
	}
}

func TestEachRunsOnItsDevice(t *testing.T) {
	t.Parallel()
	d := dispatcher(t, dispatch.Config{})
	target, _ := serve(t, d, "127.0.0.1:0")
	dir := t.TempDir()
	devices := []string{"d1", "d2", "d3"}
	for _, device := range devices {
		tools := flow.NewTools()
		tools.Exec(touch(dir, "echo hi >&2"))
		runWorker(t, worker.Config{Target: target, Device: device, Tools: tools, Dir: t.TempDir()})
	}
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
	id, err := engine.Start(t.Context(), "fan", map[string]any{"devices": devices})
	if err != nil {
		t.Fatal(err)
	}
	x := finish(t, engine, id)
	if got, want := string(x.Steps[0].Output), `{"items":[{"device":"d1"},{"device":"d2"},{"device":"d3"}]}`; x.State != flow.Done || got != want {
		t.Fatalf("%s with %s, want %s", x.State, got, want)
	}
	if logs := x.Steps[0].Tasks[1].Logs; logs != "hi\n" {
		t.Errorf("logs %q", logs)
	}
	if have := d.Tools(); have["touch"] != len(devices) || len(have) != 1 { // each has said so before it ran one
		t.Errorf("devices have the tools %v", have)
	}
}

// The server's process goes away while a tool runs on a device, and comes back: the attempt is not run twice, and its result, which was
// there before the server was, is not lost.
func TestServerRestartNeitherLosesNorDoubles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	store := memstore.New()
	serverTools := flow.NewTools()
	serverTools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Manual})
	var addr, id string
	var workerStarted bool
	for round := range 2 {
		d := dispatcher(t, dispatch.Config{Grace: time.Minute})
		if addr == "" {
			addr = addrtest.Free(t)
		}
		target, stopServer := serve(t, d, addr)
		addr = strings.TrimPrefix(target, "http://")
		if !workerStarted {
			tools := flow.NewTools()
			tools.Exec(touch(dir, fmt.Sprintf(`while [ ! -e %s ]; do sleep 0.01; done`, gate)))
			runWorker(t, worker.Config{Target: target, Device: "d1", Tools: tools, Dir: t.TempDir()})
			workerStarted = true
		}
		engine, err := flow.New(flow.Config{Store: store, Tools: serverTools, Remote: d})
		if err != nil {
			t.Fatal(err)
		}
		stopEngine := background(t, engine.Run)
		if round == 0 {
			if _, err := engine.Save(t.Context(), []byte(remoteFlow)); err != nil {
				t.Fatal(err)
			}
			if id, err = engine.Start(t.Context(), "fan", map[string]any{"devices": []string{"d1"}}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { _, err := os.Stat(filepath.Join(dir, "d1")); return err == nil })
			stopEngine()
			stopServer()
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		x := finish(t, engine, id)
		lines, err := os.ReadFile(filepath.Join(dir, "d1"))
		if err != nil {
			t.Fatal(err)
		}
		if x.State != flow.Done || string(lines) != "1\n" {
			t.Fatalf("state %s, attempts on the device %q; want done, and the first alone", x.State, lines)
		}
	}
}

// A worker that dies in the middle of an attempt: its successor says so, and a keyed tool is run again with the same key.
func TestWorkerRestartRunsKeyedToolAgain(t *testing.T) {
	t.Parallel()
	dir, state := t.TempDir(), t.TempDir()
	d := dispatcher(t, dispatch.Config{Grace: time.Minute})
	target, _ := serve(t, d, "127.0.0.1:0")
	tools := flow.NewTools()
	tools.Exec(touch(dir, `[ "$ZHIYUN_ATTEMPT" != 1 ] || sleep 60`))
	config := worker.Config{Target: target, Device: "d1", Tools: tools, Dir: state, Grace: time.Millisecond}
	stop := runWorker(t, config)
	serverTools := flow.NewTools()
	serverTools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Keyed})
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: serverTools, Remote: d})
	if err != nil {
		t.Fatal(err)
	}
	background(t, engine.Run)
	if _, err := engine.Save(t.Context(), []byte(remoteFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := engine.Start(t.Context(), "fan", map[string]any{"devices": []string{"d1"}})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { data, _ := os.ReadFile(filepath.Join(dir, "d1")); return len(data) > 0 }) // the shell makes it before it writes
	stop()
	runWorker(t, config)
	x := finish(t, engine, id)
	lines, err := os.ReadFile(filepath.Join(dir, "d1"))
	if err != nil {
		t.Fatal(err)
	}
	if x.State != flow.Done || string(lines) != "1\n2\n" {
		t.Fatalf("state %s, attempts on the device %q; want done after two", x.State, lines)
	}
}

func TestDeviceThatIsGoneFailsAfterGrace(t *testing.T) {
	t.Parallel()
	d := dispatcher(t, dispatch.Config{Grace: 20 * time.Millisecond})
	result := d.Run(t.Context(), flow.Call{ID: "x", Device: "nobody", Tool: "touch"})
	if result.Error == nil || result.Error.Code != flow.CodeDeviceLost || !result.Error.Unknown {
		t.Fatalf("error %v, want %s", result.Error, flow.CodeDeviceLost)
	}
}

// waitFor polls a condition outside of this process's control.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the condition did not come true within a minute")
		}
	}
}
