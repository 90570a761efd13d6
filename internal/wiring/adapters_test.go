package wiring_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	cmdbmem "github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	"github.com/zhiyun-ops/zhiyun/flow"
	flowmem "github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// background runs run until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// nameService notes what is set.
type nameService struct {
	names
	set map[string]int
	err error
}

func (n *nameService) SetShare(_ context.Context, _ string, shares map[string]int, _ ...l5server.ShareOption) error {
	n.set = shares
	return n.err
}

func TestWeights(t *testing.T) {
	t.Parallel()
	n := &nameService{names: names{"s": {instance("a:1", "d1", 10, l5.StateUp), instance("b:1", "d2", 100, l5.StateDraining)}}}
	w := wiring.Weights{Names: n}
	got, err := w.Shares(t.Context(), "s")
	if diff := cmp.Diff(map[string]int{"a:1": 10, "b:1": 0}, got); err != nil || diff != "" {
		t.Errorf("shares: %v (-want +got):\n%s", err, diff)
	}
	for _, test := range []struct {
		name      string
		ask, want map[string]int
	}{
		{"those that are registered", map[string]int{"a:1": 50}, map[string]int{"a:1": 50}},
		{"zero for one that is gone is done", map[string]int{"a:1": 0, "gone:1": 0}, map[string]int{"a:1": 0}},
		{"nothing but that", map[string]int{"gone:1": 0}, nil},
		{"traffic for one that is gone is asked for, and refused by the name service", map[string]int{"gone:1": 10}, map[string]int{"gone:1": 10}},
	} {
		n.set = nil
		if err := w.SetShares(t.Context(), "s", test.ask, 7); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, n.set); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	n.err = l5server.ErrFenced
	if err := w.SetShares(t.Context(), "s", map[string]int{"a:1": 1}, 7); !errors.Is(err, l5server.ErrFenced) {
		t.Errorf("under an old term: %v", err)
	}
}

// The same order launched twice is one execution, with the order's parameters, actor and reason.
func TestLauncher(t *testing.T) {
	t.Parallel()
	tools := flow.NewTools()
	hold := make(chan struct{})
	type in struct {
		Module string `json:"module"`
	}
	flow.Func(tools, "test.work", func(ctx context.Context, in in) (struct{}, error) {
		if in.Module == "bad" {
			return struct{}{}, errors.New("no such module")
		}
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return struct{}{}, ctx.Err()
	})
	engine, err := flow.New(flow.Config{Store: flowmem.New(), Tools: tools})
	if err != nil {
		t.Fatal(err)
	}
	background(t, engine.Run)
	for _, name := range []string{wiring.FlowExpand, wiring.FlowContract} {
		text := "flow: " + name + "\nparams:\n  module: {type: string}\n  count: {type: int}\n  devices: {type: \"list<string>\", default: []}\n" +
			"steps:\n  - {name: work, stage: apply, tool: test.work, with: {module: \"${params.module}\"}}\n"
		if _, err := engine.Save(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	launcher := wiring.Launcher{Engine: engine}
	order := scale.Order{
		Key: "m-out-1", Module: "m", Direction: scale.Out, Count: 2, Devices: []scale.Device{{Name: "d1"}, {Name: "d2"}},
		Reason: scale.Reason{Code: scale.CodeLoadHigh},
	}
	id, err := launcher.Launch(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := launcher.Launch(t.Context(), order); err != nil || again != id {
		t.Errorf("launched again: %q, %v; want %q", again, err, id)
	}
	e, err := engine.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if e.Flow != wiring.FlowExpand || e.Params["module"] != "m" || len(e.Params["devices"].([]any)) != 2 || e.Actor != "scale" || e.Reason == "" {
		t.Errorf("the execution is %+v", e)
	}
	if state, err := launcher.State(t.Context(), id); err != nil || state != scale.Underway {
		t.Errorf("state %q, %v", state, err)
	}
	close(hold)
	await(t, launcher, id, scale.Done)
	contract, err := launcher.Launch(t.Context(), scale.Order{Key: "bad-in-1", Module: "bad", Direction: scale.In, Actor: "ann", Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	await(t, launcher, contract, scale.Failed)
	if e, err = engine.Get(t.Context(), contract); err != nil || e.Flow != wiring.FlowContract || e.Actor != "ann" {
		t.Errorf("the contraction is %+v, %v", e, err)
	}
	if _, err := launcher.State(t.Context(), "nobody"); err == nil {
		t.Error("an execution that is not there has a state")
	}
}

func await(t *testing.T, launcher wiring.Launcher, id string, want scale.Progress) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, err := range launcher.Engine.Watch(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if state, err := launcher.State(t.Context(), id); err != nil || state != want {
		t.Errorf("state of %s is %q, %v; want %q", id, state, err, want)
	}
}

// sink takes notices.
type sink struct {
	mu  sync.Mutex
	got []center.Notice
}

func (s *sink) Name() string { return "test" }

func (s *sink) Deliver(_ context.Context, n center.Notice) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, n)
	return nil
}

func TestNotifierDeliversOnce(t *testing.T) {
	t.Parallel()
	s := &sink{}
	centers, err := center.New(center.Config{Store: store.NewMemory(), Dir: filepath.Join(t.TempDir(), "b"), Sinks: []center.Sink{s}})
	if err != nil {
		t.Fatal(err)
	}
	background(t, centers.Run)
	notifier := wiring.Notifier{Center: centers.Notify}
	notice := flow.Notice{ID: "n-1", Kind: "stuck", Severity: "critical", Flow: "expand", Execution: "e-1", Text: "undo failed", At: time.Now()}
	for range 2 {
		if err := notifier.Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) != 1 || s.got[0].Kind != "flow.stuck" || s.got[0].Text != "expand e-1: undo failed" || s.got[0].Severity != "critical" {
		t.Errorf("delivered %+v", s.got)
	}
}

// The notices of a flow are routed like any other of its module; what a flow says of itself keeps none of them from going out.
func TestNotifierTellsWhoseNoticeItIs(t *testing.T) {
	t.Parallel()
	s := &sink{}
	owner := func(module string) string { return map[string]string{"shop.cart": "ann"}[module] }
	centers, err := center.New(center.Config{Store: store.NewMemory(), Dir: filepath.Join(t.TempDir(), "b"), Sinks: []center.Sink{s}, Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	background(t, centers.Run)
	notifier := wiring.Notifier{Center: centers.Notify}
	for i, module := range []string{"shop.cart", "no such name, and\nlong", ""} {
		notice := flow.Notice{
			ID: fmt.Sprintf("n-%d", i), Kind: "stuck", Severity: "critical", Flow: "expand", Execution: "e-1", Module: module,
			Text: strings.Repeat("\u7f29", 16<<10), At: time.Now(),
		}
		if err := notifier.Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []string
	for _, n := range s.got {
		got = append(got, n.Module+" of "+n.Owner)
		if !utf8.ValidString(n.Text) || !strings.HasSuffix(n.Text, " ...") {
			t.Errorf("the text of %d bytes ends with %q", len(n.Text), n.Text[len(n.Text)-8:])
		}
	}
	if diff := cmp.Diff([]string{"shop.cart of ann", " of ", " of "}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDriftFleet(t *testing.T) {
	t.Parallel()
	db, err := cmdb.New(cmdb.Config{Store: cmdbmem.New()})
	if err != nil {
		t.Fatal(err)
	}
	background(t, db.Run)
	plan, err := db.Plan(t.Context(), cmdb.Documents([]byte(`
kind: site
name: s
city: c
---
kind: device_type
name: t
cores: 1
---
kind: module
name: m
---
{kind: device, name: d1, addr: 10.0.0.1, site: s, type: t}
---
{kind: device, name: d2, addr: 10.0.0.2, site: s, type: t}
---
{kind: device, name: d3, addr: 10.0.0.3, site: s, type: t}
`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "x", Key: "k", Module: "m", Names: []string{"d1", "d2"}, Count: 2, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d1", "d2"} {
		if err := db.Serve(t.Context(), "x", name, "m"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]struct {
		module string
		size   int
	}{"d1": {"m", 2}, "d3": {}, "nobody": {}} {
		module, size, err := wiring.DriftFleet{CMDB: db}.Module(t.Context(), name)
		if err != nil || module != want.module || size != want.size {
			t.Errorf("%s serves %q with %d, %v; want %+v", name, module, size, err, want)
		}
	}
}

// The device's tools are known to flow under the same names, with undo and effect; only an agent has the commands.
func TestDeviceTools(t *testing.T) {
	t.Parallel()
	declared, run := wiring.DeviceTools(""), wiring.DeviceTools("/opt/zhiyun")
	if len(declared) != len(device.Tools()) || len(run) != len(declared) {
		t.Fatalf("%d declared, %d to run, of %d", len(declared), len(run), len(device.Tools()))
	}
	tools := flow.NewTools()
	for i, tool := range device.Tools() {
		d, r := declared[i], run[i]
		if d.Name != tool.Name || d.Undo != tool.Undo || string(d.Effect) != string(tool.Effect) || !d.OnDevice || len(d.Command) != 0 {
			t.Errorf("%s is declared as %+v", tool.Name, d)
		}
		if want := append([]string{"/opt/zhiyun"}, tool.Command[1:]...); !slices.Equal(r.Command, want) {
			t.Errorf("%s runs as %q, want %q", tool.Name, r.Command, want)
		}
		tools.Exec(d)
	}
}
