//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/demo"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
	"github.com/zhiyun-ops/zhiyun/internal/sample"
	"github.com/zhiyun-ops/zhiyun/l5"
)

const (
	module   = "e2e.api" // the module that grows, and its service
	callee   = "e2e.dep" // what it calls
	web      = "e2e.web" // who calls it
	resident = "d1"      // the device that serves throughout
	caller   = "w1"      // the device of the callers
	rate     = 60        // calls a second
)

// pool are the devices of the module; those behind the first come and go.
var pool = []string{resident, "d2", "d3", "d4"}

// hang bounds each wait: nothing is said about speed. An instance that died often is ejected for a minute, and gray waits
// for it.
const hang = 3 * time.Minute

// document declares everything; its placeholders are the virtual address and the devices.
const document = `
kind: site
name: here
city: shenzhen
---
kind: device_type
name: c2
cores: 2
memory_mb: 4096
---
kind: business
name: e2e
title: What is killed
owner: ops
---
kind: module
name: e2e.dep
business: e2e
owner: ops
services:
  - {id: e2e.dep, port: 9}
---
kind: module
name: e2e.web
business: e2e
owner: ops
permissions: [e2e.api]
---
kind: module
name: e2e.api
business: e2e
owner: ops
scale: {min: 1, max: 4, capacity: {c2: 200}}
packages:
  - {name: e2e-api, version: 1.0.0}
files:
  - {source: e2e/motd.txt, path: data/motd.txt}
configs:
  - {template: e2e-api.yaml, path: etc/sample.yaml}
scripts:
  - {name: init, package: e2e-api, path: scripts/init, undo: scripts/undo}
processes:
  - name: e2e-api
    package: e2e-api
    command: [bin/sample, -addr, "{addr}:9000"]
ports:
  - {port: 9000, process: e2e-api}
services:
  - {id: e2e.api, port: 9000}
permissions: [e2e.dep]
virtual_addrs:
  - {name: e2e-vip, addr: "%s", port: 9000}
tests:
  - {kind: tcp, port: 9000}
  - {kind: http, port: 9000, path: /healthz}
gray:
  policy: deck
  params: {stages: "50,100", soak: 500ms, min_requests: "5", min_reports: "1", gap_reset: 3s, lost_after: 5s}
drift:
  mode: repair
`

// world is a running Zhiyun whose processes the tests kill.
type world struct {
	t           *testing.T
	dir         string
	environment *dev.Environment
	api         *control.Client
	snare       *snare
	random      *rand.Rand // guarded by killing
	ledger      *ledger
	traffic     traffic

	killing sync.Mutex     // one kill at a time; guards what follows
	plan    map[string]aim // by tool
	current string         // the execution under way
	kills   map[string]int // done, by target
	sprung  []string       // what happened in this run, for messages
	revive  sync.WaitGroup // what restarts killed processes
}

// aim is whom a trap kills.
type aim struct {
	tool, moment, target string
	device               string        // of agent and sample, where the tool does not run on one
	delay                time.Duration // during: how long after the tool was started
	down                 time.Duration // how long the target stays away
}

func (a aim) String() string {
	return fmt.Sprintf("%s %s %s", a.target, a.moment, a.tool)
}

// The targets of kills.
const (
	server = "server"
	agent  = "agent"
	smpl   = "sample"
	cancel = "cancel" // kills nothing: the execution is cancelled
	skip   = "skip"   // kills nothing: a person skips the step at which the execution is
)

var targets = []string{server, agent, smpl}

// address is a device's own: another one for each run of the tests, so that two may run side by side.
func address(device string) string {
	for i, name := range append(slices.Clone(pool), caller) {
		if name == device {
			return fmt.Sprintf("127.%d.%d.1", 20+os.Getpid()%200, 1+i)
		}
	}
	return ""
}

// newWorld starts server, agents and callers, and brings the module to one device.
func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	// The sockets below it need a short path, which t.TempDir is not.
	dir, err := os.MkdirTemp("/tmp", "zy-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, random: rand.New(rand.NewPCG(seed, 0)), plan: make(map[string]aim), kills: make(map[string]int)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs and data are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	t.Cleanup(w.end)
	var script string
	w.snare, script = newSnare(t, dir, w.strike)
	config := dev.Config{
		Dir: dir, Exe: zhiyun,
		ServerFlags: []string{"--exe", script, "--bucket", "1s", "--tick", "200ms", "--grace", "15s", "--approve", "auto", "--scale=false"},
		AgentFlags:  append(dev.FastAgent(), "--exe", script),
	}
	for _, name := range append(slices.Clone(pool), caller) {
		config.Devices = append(config.Devices, dev.Device{Name: name, Addr: address(name)})
	}
	starting, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if w.environment, err = dev.Start(starting, config); err != nil {
		t.Fatal(err)
	}
	if w.api, err = control.Dial(w.environment.Target(), ""); err != nil {
		t.Fatal(err)
	}
	w.declare(starting)
	w.call()
	w.ledger = newLedger(t, w.environment.Target())
	w.settled(w.finish(w.start("expand", resident)), resident)
	return w
}

// end stops everything and has the store of the executions checked.
func (w *world) end() {
	w.revive.Wait()
	if w.environment == nil {
		return
	}
	w.environment.Stop(20 * time.Second)
	for _, name := range pool { // the processes outlive their agents
		for _, pid := range w.processes(name) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	store, err := sqlitestore.Open(filepath.Join(w.environment.ServerDir(), "flow.db"))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer store.Close()
	violations, err := flow.Check(context.Background(), store)
	if err != nil {
		w.t.Error(err)
	}
	for _, v := range violations {
		w.t.Errorf("the store of executions: %s", v)
	}
}

func because(key string) *pb.Cause { return &pb.Cause{Actor: "e2e", Reason: "test", Key: key} }

func (w *world) declare(ctx context.Context) {
	t := w.t
	t.Helper()
	pack, err := sample.Pack(sampled)
	if err != nil {
		t.Fatal(err)
	}
	defer pack.Close()
	if _, err := w.api.PushPackage(ctx, "e2e-api", "1.0.0", pack, because("")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.PushFile(ctx, "e2e", "motd.txt", 0o644, strings.NewReader("hello\n"), because("")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Configs.SetTemplate(ctx, connect.NewRequest(&pb.TemplateRequest{Name: "e2e-api.yaml", Body: "# {{ .device.name }}\nrate: 500\nworkers: 8\n", Cause: because("")})); err != nil {
		t.Fatal(err)
	}
	virtual := addrtest.Free(t)
	text := fmt.Sprintf(document, virtual)
	for _, name := range append(slices.Clone(pool), caller) {
		text += fmt.Sprintf("---\nkind: device\nname: %s\naddr: %s\nsite: here\ntype: c2\n", name, address(name))
	}
	if _, err := w.api.Resources.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Documents: []*pb.SourceDocument{{Name: "e2e.yaml", Text: []byte(text)}}, Cause: because("")})); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Permissions.Request(ctx, connect.NewRequest(&pb.PermissionRequest{Caller: web, Service: module, Cause: because("web-grant")})); err != nil {
		t.Fatal(err)
	}
	// What the module calls is there, and is only asked whether it is: an instance without a lease.
	there := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(there.Close)
	instance, err := json.Marshal(l5.Instance{Service: callee, Addr: there.Listener.Addr().String(), Module: callee, Share: 100, State: l5.StateUp})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Registry.Register(ctx, connect.NewRequest(&pb.RegisterRequest{Instances: [][]byte{instance}, Cause: because("dep")})); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Devices.Acquire(ctx, connect.NewRequest(&pb.AcquireRequest{Owner: "e2e", Module: web, Count: 1, Names: []string{caller}, Cause: because("web")})); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: "e2e", Names: []string{caller}, Module: web, Cause: because("")})); err != nil {
		t.Fatal(err)
	}
}

// call begins the traffic that gray judges by. It ends before the environment does.
func (w *world) call() {
	order, orders := io.Pipe()
	heard, told := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := demo.Load(context.Background(), demo.LoadConfig{Target: w.environment.Socket(caller), Caller: web, Service: module, Path: "/", Seed: 1, Timeout: 30 * time.Second, Control: order, Out: told})
		told.Close()
		ended <- err
	}()
	heardAll := make(chan struct{})
	go func() { // waited for by the clean-up below
		defer close(heardAll)
		w.traffic.hear(heard)
	}()
	go fmt.Fprintf(orders, "all %d\n", rate) // ends when it was read, or the pipe was closed
	w.t.Cleanup(func() {
		orders.Close()
		if err := <-ended; err != nil {
			w.t.Error("the callers:", err)
		}
		<-heardAll
	})
}

// processes are those that run from a device's root.
func (w *world) processes(device string) []int {
	root := w.environment.Root(device) + "/"
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	var pids []int
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, root) {
			if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// until polls a condition until it holds.
func (w *world) until(what string, condition func() error) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(hang)
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			w.killing.Lock()
			sprung := slices.Clone(w.sprung)
			w.killing.Unlock()
			w.t.Fatalf("never happened: %s: %v\nkills: %s", what, err, strings.Join(sprung, "; "))
		}
	}
}

// ask calls the API with a bound on each call, since a server may be dying under it.
func ask[T any](call func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return call(ctx)
}

// start starts a flow for one device, until the start is acknowledged: the key makes it one of a kind.
func (w *world) start(name, device string) string {
	w.t.Helper()
	params, err := json.Marshal(map[string]any{"module": module, "count": 1, "devices": []string{device}})
	if err != nil {
		w.t.Fatal(err)
	}
	key := fmt.Sprintf("%s-%s-%d", name, device, time.Now().UnixNano())
	var id string
	w.until("the flow "+name+" starts", func() error {
		answer, err := ask(func(ctx context.Context) (*connect.Response[pb.StartFlowResponse], error) {
			return w.api.Flows.Start(ctx, connect.NewRequest(&pb.StartFlowRequest{Flow: name, Params: params, Cause: &pb.Cause{Actor: "e2e", Reason: "test", Key: key}}))
		})
		if err == nil {
			id = answer.Msg.Id
			w.killing.Lock()
			w.current = id
			w.killing.Unlock()
		}
		return err
	})
	return id
}

// finish waits for the end of an execution. One that is stuck fails the test.
func (w *world) finish(id string) flow.Execution {
	w.t.Helper()
	var e flow.Execution
	w.until("execution "+id+" ends", func() error {
		var err error
		e, err = ask(func(ctx context.Context) (flow.Execution, error) {
			return control.Decode[flow.Execution](w.api.Flows.Get(ctx, connect.NewRequest(&pb.ExecutionRequest{Id: id})))
		})
		switch {
		case err != nil:
			return err
		case e.State == flow.Stuck:
			w.t.Fatalf("execution %s is stuck at %s: %v: %s", id, e.Step, e.Error, e.Waiting)
		case !e.State.Ended():
			return fmt.Errorf("it is %s at %s", e.State, e.Step)
		}
		return nil
	})
	return e
}
