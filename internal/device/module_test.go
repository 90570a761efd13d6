package device_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/sample"
	"github.com/zhiyun-ops/zhiyun/internal/sample/load"
	"github.com/zhiyun-ops/zhiyun/internal/vip"
)

// join takes a device through the deploying and checking steps, with the sample module; leave takes it back.
func join(w *world, pack device.PackageInstallIn, port int) {
	w.Helper()
	ctx := w.Context()
	_, err := device.PackageInstall(ctx, w.env("install"), pack)
	w.try(err)
	_, err = device.FileSync(ctx, w.env("files"), device.FileSyncIn{Files: []device.File{{Path: "data/words", Digest: w.blobs.Put([]byte("words"))}}})
	w.try(err)
	_, err = device.ConfigPush(ctx, w.env("config"), device.ConfigPushIn{Configs: []device.ConfigFile{
		{Path: sample.SettingsPath, Content: "rate: 500\nworkers: 10\ngreeting: pushed\n"}}})
	w.try(err)
	_, err = device.ScriptRun(ctx, w.env("script"), device.ScriptRunIn{Package: pack.Name, Path: "scripts/init", Undo: "scripts/undo"})
	w.try(err)
	_, err = device.CallerJoin(ctx, w.env("join"), device.CallerJoinIn{Caller: pack.Name, Callees: []string{"shop.pay"}})
	w.try(err)
	_, err = device.PackageStart(ctx, w.env("start"), device.PackageStartIn{Package: pack.Name, Processes: sampleProcess(port)})
	w.try(err)
	_, err = device.ProcessScan(ctx, w.env(""), device.ProcessScanIn{Processes: sampleProcess(port), Ports: []int{port}, Exact: true})
	w.try(err)
}

func sampleProcess(port int) []device.ProcessSpec {
	return []device.ProcessSpec{{Name: "sample", Command: []string{"bin/sample", "sample", "-addr", "{addr}:" + strconv.Itoa(port)}}}
}

func leave(w *world, pack device.PackageInstallIn) {
	w.Helper()
	ctx, env := w.Context(), w.env("contract")
	_, err := device.PackageStop(ctx, env, device.PackageStopIn{PackageStartIn: device.PackageStartIn{Processes: sampleProcess(1)}, Purge: true})
	w.try(err)
	_, err = device.CallerLeave(ctx, env, device.CallerLeaveIn{CallerJoinIn: device.CallerJoinIn{Caller: pack.Name}, Purge: true})
	w.try(err)
	_, err = device.ScriptUndo(ctx, w.env("script"), device.ScriptUndoIn{}) // by the key of the expansion
	w.try(err)
	_, err = device.ConfigRestore(ctx, env, device.ConfigRestoreIn{ConfigPushIn: device.ConfigPushIn{Configs: []device.ConfigFile{{Path: sample.SettingsPath}}}, Purge: true})
	w.try(err)
	_, err = device.FileRestore(ctx, env, device.FileRestoreIn{FileSyncIn: device.FileSyncIn{Files: []device.File{{Path: "data/words"}}}, Purge: true})
	w.try(err)
	_, err = device.PackageRemove(ctx, env, device.PackageRemoveIn{PackageInstallIn: device.PackageInstallIn{Name: pack.Name}, Purge: true})
	w.try(err)
}

// Two devices serve behind a virtual address under load; one leaves, and no call fails.
func TestAModuleComesAndGoesWithoutAFailedCall(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := sample.Pack(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	blob, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := vip.NewProxy(vip.ProxyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- proxy.Run(ctx) }()

	var worlds []*world
	var before []string
	var servers []string
	address := ""
	for range 2 {
		w := newWorld(t).withAgent()
		pack := device.PackageInstallIn{Name: "demo.api", Version: "1", Digest: w.blobs.Put(blob)}
		before = append(before, w.tree())
		port := freePort(w)
		join(w, pack, port)
		worlds, servers = append(worlds, w), append(servers, net.JoinHostPort(w.addr, strconv.Itoa(port)))
		if address == "" {
			address = net.JoinHostPort(w.addr, strconv.Itoa(freePort(w)))
		}
		w.try(proxy.Add(ctx, address, servers[len(servers)-1], 100))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	generator, err := load.New(load.Config{Call: load.Get(client, "http://"+address+"/"), Seed: 1, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := generator.SetPhase(load.Phase{Name: "steady", Rate: 100}); err != nil {
		t.Fatal(err)
	}
	loaded, stop := context.WithCancel(ctx)
	go func() { ended <- generator.Run(loaded) }()
	answered := func(n int64) func() bool {
		return func() bool { return generator.Report().Total().OK >= n }
	}
	worlds[0].eventually("calls are answered", answered(20))
	worlds[0].try(proxy.Remove(ctx, address, servers[0]))
	leave(worlds[0], device.PackageInstallIn{Name: "demo.api"})
	worlds[0].same("after it left", before[0])
	worlds[0].eventually("calls are still answered", answered(generator.Report().Total().OK+20))
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if total := generator.Report().Total(); total.Failed != 0 || total.Dropped != 0 || total.OK != total.Sent {
		t.Errorf("calls failed: %+v", total)
	} else {
		t.Logf("%d calls, p99 %v", total.OK, total.Latency.Quantile(0.99))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
