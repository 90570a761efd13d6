package tools_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	flowmem "github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/worker"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// failTool names a tool that does its work and then fails, so that nobody knows of what it did.
const failTool = "TEST_FAIL_TOOL"

// noSleep: a process with the race detector would sleep for a second at its end.
const noSleep = "GORACE=atexit_sleep_ms=0"

// TestMain lets this binary be the tools, as the zhiyun binary is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "tool" {
		os.Exit(asTool(os.Args[2]))
	}
	os.Exit(m.Run())
}

func asTool(name string) int {
	run := tools.Run
	for _, d := range device.Tools() {
		if d.Name == name {
			run = device.Run
		}
	}
	if name != os.Getenv(failTool) {
		return run(context.Background(), name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	}
	if exit := run(context.Background(), name, os.Stdin, io.Discard, os.Stderr, os.Getenv); exit != 0 {
		return exit
	}
	fmt.Println(`{"error":{"code":"planted","message":"it did its work and says that it failed","retry":false}}`)
	return 1
}

// fleet is a whole setup: a server's parts, an engine, and devices with their agents' parts.
type fleet struct {
	*controltest.World
	engine *flow.Engine
	roots  map[string]string
	lists  map[string]*supervise.Supervisor
}

func newFleet(t *testing.T, failing string, devices ...string) *fleet {
	t.Helper()
	f := &fleet{World: world(t), roots: map[string]string{}, lists: map[string]*supervise.Supervisor{}}
	f.pack(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(wait.Wait)
	t.Cleanup(cancel)
	run := func(do func(context.Context) error) {
		wait.Go(func() {
			if err := do(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	exe := controltest.Must(os.Executable())(t)
	remote := controltest.Must(dispatch.New(dispatch.Config{}))(t)
	mux := http.NewServeMux()
	mux.Handle(remote.Handler())
	dir := controltest.Must(os.MkdirTemp("", "fleet"))(t) // short: it holds sockets
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	listener := controltest.Must(net.Listen("unix", filepath.Join(dir, "w")))(t)
	run(func(ctx context.Context) error { return transport.NewServer(mux).Serve(ctx, listener, time.Second) })

	local, onDevice := flow.NewTools(), flow.NewTools()
	const patience = 2 * time.Minute // a process with the race detector takes its time to begin, where others do
	for _, m := range tools.Manifests(exe) {
		m.Timeout = max(m.Timeout, patience)
		local.Exec(m)
	}
	for _, d := range device.Tools() {
		m := flow.Manifest{Name: d.Name, Input: d.Input, Output: d.Output, Timeout: max(d.Timeout, patience), Effect: flow.Effect(d.Effect), Undo: d.Undo, OnDevice: true, Plan: d.Plan}
		local.Exec(m)
		m.Command = []string{exe, "tool", d.Name}
		onDevice.Exec(m)
	}
	for _, name := range devices {
		f.device(t, run, onDevice, filepath.Join(dir, name), name, "unix://"+filepath.Join(dir, "w"), failing)
	}
	f.engine = controltest.Must(flow.New(flow.Config{Store: flowmem.New(), Tools: local, Remote: remote,
		Env: []string{"ZHIYUN_SERVER=" + f.Target, failTool + "=" + failing, noSleep}}))(t)
	run(f.engine.Run)
	for _, source := range tools.Flows() {
		controltest.Must(f.engine.Save(ctx, source))(t)
	}
	return f
}

// device runs what an agent runs: the supervisor, the device's API, the worker, and a reporter of no drift.
func (f *fleet) device(t *testing.T, run func(func(context.Context) error), all *flow.Tools, dir, name, target, failing string) {
	root := filepath.Join(dir, "r")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	s := controltest.Must(supervise.New(supervise.Config{Dir: filepath.Join(dir, "s")}))(t)
	run(s.Run)
	socket := filepath.Join(dir, "d")
	run(func(ctx context.Context) error {
		return device.Serve(ctx, device.ServeConfig{Path: socket, Supervisor: s, Routes: &devicetest.Routes{}})
	})
	w := controltest.Must(worker.New(worker.Config{Target: target, Device: name, Tools: all, Dir: filepath.Join(dir, "w"), Env: []string{
		noSleep,
		"ZHIYUN_ROOT=" + root, "ZHIYUN_AGENT=" + socket, "ZHIYUN_SERVER=" + f.Target, "ZHIYUN_DEVICE=" + name, "ZHIYUN_ADDR=127.0.0.1",
		failTool + "=" + failing,
	}}))(t)
	run(w.Run)
	t.Cleanup(report(t, f.World, name))
	t.Cleanup(func() { // before the supervisor ends: what it runs would live on
		for _, spec := range s.Specs() {
			if err := s.Stop(context.Background(), spec.Name, time.Second); err != nil {
				t.Error(err)
			}
		}
	})
	f.roots[name], f.lists[name] = root, s
}

// pack gives the module programs that run, in the place of those that only look so.
func (f *fleet) pack(t *testing.T) {
	t.Helper()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for name, body := range map[string]string{
		"bin/cart": "#!/bin/sh\nexec sleep 600\n",
		"bin/init": "#!/bin/sh\nmkdir -p \"$ZHIYUN_ROOT/data\"\necho ready > \"$ZHIYUN_ROOT/data/cart\"\n",
		"bin/undo": "#!/bin/sh\nrm -f \"$ZHIYUN_ROOT/data/cart\"\n",
	} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	controltest.Must(f.Centers.Packages.Push(t.Context(), "cart", "1.1", &archive, "alice"))(t)
	text := strings.NewReplacer(`version: "1.0"`, `version: "1.1"`, "ports: [{port: 7000}]\n", "", "permissions: [shop.pay]\n", "").Replace(site)
	f.Apply(t, text)
}

// run carries out a flow to its end.
func (f *fleet) run(t *testing.T, name string, params map[string]any) flow.Execution {
	t.Helper()
	id := controltest.Must(f.engine.Start(t.Context(), name, params, flow.By("alice")))(t)
	for event, err := range f.engine.Watch(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Error != nil {
			t.Logf("%s %s %s: %v", event.Kind, event.Step, event.Device, event.Error)
		}
		if event.Kind == flow.EventStuck {
			t.Fatalf("%s is stuck: %s", name, event.Reason)
		}
	}
	return controltest.Must(f.engine.Get(t.Context(), id))(t)
}

// left is what a device has beside the agent's own notes.
func (f *fleet) left(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(f.roots[name], func(path string, entry os.DirEntry, err error) error {
		local, _ := filepath.Rel(f.roots[name], path)
		if err == nil && !entry.IsDir() && !strings.HasPrefix(local, "var/zhiyun/") {
			out = append(out, local)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.lists[name].List() {
		out = append(out, "process "+p.Name)
	}
	return out
}

// A module grows by two devices and shrinks again, on real files and processes; nothing is left of it.
func TestExpandAndContract(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "", "d1", "d2")
	before := f.InForce(t)
	if x := f.run(t, "expand", map[string]any{"module": "shop.cart", "devices": []any{"d1", "d2"}}); x.State != flow.Done {
		t.Fatalf("expansion is %s: %v", x.State, x.Error)
	}
	for _, name := range []string{"d1", "d2"} {
		d := controltest.Must(f.CMDB.Device(name))(t)
		if d.State != cmdb.InService || d.Module != "shop.cart" {
			t.Errorf("%s is %s of %q", name, d.State, d.Module)
		}
		body, err := os.ReadFile(filepath.Join(f.roots[name], "etc/cart.conf"))
		if err != nil || string(body) != "listen "+d.Addr+"\n" {
			t.Errorf("configuration of %s: %q, %v", name, body, err)
		}
		if list := f.lists[name].List(); len(list) != 1 || list[0].State != supervise.Running {
			t.Errorf("processes of %s: %+v", name, list)
		}
	}
	for _, i := range f.Names.Instances("shop.cart") {
		if i.Share != 100 {
			t.Errorf("%s has share %d", i.Addr, i.Share)
		}
	}
	if real := f.Balancer.All(); len(real) != 3 {
		t.Errorf("real servers %v", real)
	}
	if x := f.run(t, "contract", map[string]any{"module": "shop.cart", "devices": []any{"d1", "d2"}}); x.State != flow.Done {
		t.Fatalf("contraction is %s: %v", x.State, x.Error)
	}
	after := f.InForce(t)
	for key := range after {
		if strings.HasPrefix(key, "change/") {
			delete(after, key) // the record of what was done stays
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	for name := range f.roots {
		if left := f.left(t, name); len(left) != 0 {
			t.Errorf("left on %s: %v", name, left)
		}
	}
}

// A device that was lost while it served comes back with what it ran; clean takes that away before it is used again.
func TestCleanGivesAFaultyDeviceBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "", "d1")
	if x := f.run(t, "expand", map[string]any{"module": "shop.cart", "devices": []any{"d1"}}); x.State != flow.Done {
		t.Fatalf("expansion is %s: %v", x.State, x.Error)
	}
	if x := f.run(t, "clean", map[string]any{"module": "shop.cart", "device": "d1"}); x.State != flow.Failed {
		t.Errorf("cleaning a device in service is %s", x.State)
	}
	if list := f.lists["d1"].List(); len(list) != 1 || list[0].State != supervise.Running {
		t.Errorf("cleaning a device in service touched its processes: %+v", list)
	}
	if err := f.CMDB.MarkFaulty(t.Context(), "d1", "it was gone"); err != nil {
		t.Fatal(err)
	}
	if x := f.run(t, "clean", map[string]any{"module": "shop.cart", "device": "d1"}); x.State != flow.Done {
		t.Fatalf("cleaning is %s: %v", x.State, x.Error)
	}
	if d := controltest.Must(f.CMDB.Device("d1"))(t); d.State != cmdb.Idle {
		t.Errorf("the device is %s", d.State)
	}
	if left := f.left(t, "d1"); len(left) != 0 {
		t.Errorf("left on the device: %v", left)
	}
}

// Whichever step fails, though it had its effect, the execution ends compensated: nothing is left on the device, in the
// registry or in the CMDB. I10: the device is idle again.
func TestWhateverFailsIsTakenBack(t *testing.T) {
	t.Parallel()
	var steps []string
	for line := range strings.Lines(string(tools.Flows()["expand"])) {
		if tool, found := strings.CutPrefix(strings.TrimSpace(line), "tool: "); found {
			steps = append(steps, tool)
		}
	}
	if len(steps) != 23 {
		t.Fatalf("%d steps", len(steps))
	}
	for i, tool := range steps {
		if strings.HasPrefix(tool, "alert.un") || strings.HasPrefix(tool, "notify.un") {
			continue // devices that serve are not taken back because a silence did not lift
		}
		if testing.Short() && i%7 != 6 {
			continue
		}
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tool, "d1")
			before := f.InForce(t)
			x := f.run(t, "expand", map[string]any{"module": "shop.cart", "devices": []any{"d1"}})
			if x.State != flow.Failed {
				t.Errorf("the execution is %s", x.State)
			}
			if diff := cmp.Diff(before, f.InForce(t)); diff != "" {
				t.Error(diff)
			}
			if left := f.left(t, "d1"); len(left) != 0 {
				t.Errorf("left on the device: %v", left)
			}
		})
	}
}
