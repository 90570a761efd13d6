package dispatch_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/worker"
)

// A device that serves two servers with shared flows: the one that has asked for an attempt ends while it runs, the other takes it over. The attempt is not run
// twice, though nobody knows what it does, and its result reaches the other.
func TestAnotherServerTakesOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	store := memstore.NewShared(nil)
	tools := flow.NewTools()
	tools.Exec(touch(dir, `while [ ! -e "`+gate+`" ]; do sleep 0.01; done`))
	serverTools := flow.NewTools()
	serverTools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Manual, Output: json.RawMessage(`{"type": "object"}`)})
	var targets []string
	var engines []*flow.Engine
	var stops []func()
	for range 2 {
		d := dispatcher(t, dispatch.Config{Grace: time.Minute})
		target, _ := serve(t, d, "127.0.0.1:0")
		engine, err := flow.New(flow.Config{Store: store, Tools: serverTools, Remote: d, Heartbeat: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		targets, engines = append(targets, target), append(engines, engine)
		stops = append(stops, background(t, engine.Run))
		for end := time.Now().Add(time.Minute); len(engines) == 1 && !engine.Leads() && time.Now().Before(end); {
			<-time.After(5 * time.Millisecond)
		}
	}
	runWorker(t, worker.Config{Target: targets[0], Others: targets[1:], Device: "d1", Tools: tools, Dir: t.TempDir()})
	if _, err := engines[0].Save(t.Context(), []byte(remoteFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := engines[0].Start(t.Context(), "fan", map[string]any{"devices": []string{"d1"}})
	if err != nil {
		t.Fatal(err)
	}
	ran := func() string {
		data, err := os.ReadFile(filepath.Join(dir, "d1"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(data)
	}
	for end := time.Now().Add(time.Minute); ran() == "" && time.Now().Before(end); {
		<-time.After(5 * time.Millisecond)
	}
	stops[0]()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x := finish(t, engines[1], id)
	if x.State != flow.Done || strings.Count(ran(), "\n") != 1 {
		t.Errorf("%s, and the tool ran as\n%s", x.State, ran())
	}
}

func TestOthersAreChecked(t *testing.T) {
	t.Parallel()
	_, err := worker.New(worker.Config{Target: "http://127.0.0.1:1", Others: []string{"ftp://x"}, Device: "d", Tools: flow.NewTools(), Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "Others[0]") {
		t.Errorf("a target that cannot be: %v", err)
	}
}
