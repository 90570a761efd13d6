package flow_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// slowDevices are devices that take their time, and notes when two changes meet on one.
type slowDevices struct {
	mu      sync.Mutex // guards what follows
	running map[string]string
	met     int
	most    int
}

func (f *slowDevices) Run(ctx context.Context, call flow.Call) flow.Result {
	f.mu.Lock()
	if other := f.running[call.Device]; other != "" && other != call.Execution {
		f.met++
	}
	f.running[call.Device] = call.Execution
	f.most = max(f.most, len(f.running))
	f.mu.Unlock()
	select {
	case <-time.After(30 * time.Second):
	case <-ctx.Done():
	}
	f.mu.Lock()
	delete(f.running, call.Device)
	f.mu.Unlock()
	return flow.Result{Output: []byte("{}")}
}

func (f *slowDevices) Acknowledge(flow.Call) {}

// An hour of 9,132 changes over 161,679 devices, with a change of 10,000 devices among them: all end in bounded time, no two meet on a device, none starves, and what
// waits is bounded. Little's law gives the floor: 9,132 an hour of 31 s each are 79 at a time.
func TestScaleOut(t *testing.T) {
	const changes, devices, modules, wide = 9132, 161_679, 1600, 10_000
	if testing.Short() || slowed {
		t.Skip("an hour of a large service takes some seconds of this machine's")
	}
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		f := &slowDevices{running: map[string]string{}}
		tools := flow.NewTools()
		flow.Func(tools, "check", func(ctx context.Context, _ struct{}) (struct{}, error) {
			time.Sleep(time.Second)
			return struct{}{}, nil
		}, flow.WithEffect(flow.Keyed))
		tools.Exec(flow.Manifest{Name: "install", Command: []string{"install"}, Effect: flow.Keyed, OnDevice: true})
		engine := start(t, flow.Config{Store: memstore.New(), Tools: tools, Remote: f, Limits: flow.Limits{
			PerDevice: 1, PerModule: 40, Tools: map[string]flow.ToolLimit{"install": {Concurrency: 250}},
		}})
		save(t, engine, `
flow: change
params: {device: {type: string, required: true}, module: {type: string, required: true}}
locks: ["device/${params.device}"]
steps:
  - {name: install, tool: install, on: "${params.device}"}
  - {name: check, tool: check}
`)
		save(t, engine, fmt.Sprintf(`
flow: wide
priority: 3
params: {devices: {type: list<string>, required: true}}
steps:
  - {name: install, tool: install, each: "${params.devices}", parallel: %d, on: "${item}"}
`, wide))
		synctest.Wait()
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		random := rand.New(rand.NewPCG(1, 2))
		all := make([]string, wide)
		for i := range all {
			all[i] = fmt.Sprint("d", i*16)
		}
		big := launch(t, engine, "wide", map[string]any{"devices": all})
		var wait sync.WaitGroup
		took := make([]time.Duration, changes)
		var queued, open int
		var peak uint64
		for i := range changes {
			time.Sleep(time.Hour / changes)
			device := random.IntN(devices)
			id := launch(t, engine, "change", map[string]any{"device": fmt.Sprint("d", device), "module": fmt.Sprint("m", device%modules)})
			wait.Go(func() {
				if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done {
					t.Errorf("%s is %s, %v", id, x.State, err)
				} else {
					took[i] = x.Ended.Sub(x.Started)
				}
			})
			if i%500 == 0 {
				w, o := engine.Load()
				queued, open = max(queued, w), max(open, o)
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
		}
		wait.Wait()
		x := ended(t, engine, big, flow.Done)
		slices.Sort(took)
		t.Logf("%d changes in an hour: p50 %s, p99 %s, max %s; %d at a time on devices at most, %d attempts waited at most, %d executions were open at most",
			changes, took[changes/2], took[changes*99/100], took[changes-1], f.most, queued, open)
		t.Logf("the change of %d devices took %s; heap %d MB at most, %d MB before",
			wide, x.Ended.Sub(x.Started), peak>>20, before.HeapAlloc>>20)
		if f.met > 0 {
			t.Errorf("two changes met on a device %d times", f.met)
		}
		if queued > wide || open > 1000 {
			t.Errorf("%d attempts waited, %d executions were open", queued, open)
		}
		// The wide change needs 10,000 x 30 s of 250 places: 20 minutes alone.
		if took[changes-1] > 5*time.Minute || x.Ended.Sub(x.Started) > time.Hour {
			t.Errorf("the slowest change took %s, the wide one %s", took[changes-1], x.Ended.Sub(x.Started))
		}
	})
	t.Logf("it took %s of this machine's time", time.Since(began).Round(time.Millisecond))
}
