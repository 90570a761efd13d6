package wiring_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	cmdbmem "github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	"github.com/zhiyun-ops/zhiyun/flow"
	flowmem "github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

const (
	joining = `
flow: expand
params: {names: {type: "list<string>", required: true}}
steps:
  - {name: acquire, tool: acquire, with: {names: "${params.names}"}}
  - {name: callee, tool: join, with: {}}
`
	cleaning = `
flow: clean
params: {device: {type: string, required: true}, module: {type: string, required: true}}
steps: [{name: repair, tool: repair, with: {device: "${params.device}", module: "${params.module}"}}]
`
)

// leavings is a world in which an expansion waits in its last step for ever.
type leavings struct {
	cmdb    *cmdb.DB
	flow    *flow.Engine
	holds   *wiring.Holds
	serving atomic.Pointer[string] // the device that callers are sent to
	paused  atomic.Bool
	gone    atomic.Int32 // devices withdrawn
}

func newLeavings(t *testing.T) *leavings {
	t.Helper()
	w := &leavings{}
	w.serving.Store(new(string))
	var err error
	if w.cmdb, err = cmdb.New(cmdb.Config{Store: cmdbmem.New()}); err != nil {
		t.Fatal(err)
	}
	background(t, w.cmdb.Run)
	plan, err := w.cmdb.Plan(t.Context(), cmdb.Documents([]byte(`
{kind: site, name: s, city: c}
---
{kind: device_type, name: t, cores: 1}
---
{kind: module, name: m}
---
{kind: device, name: d1, addr: 10.0.0.1, site: s, type: t}
---
{kind: device, name: d2, addr: 10.0.0.2, site: s, type: t}
`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.cmdb.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	tools := flow.NewTools()
	type names struct {
		Names []string `json:"names"`
	}
	type target struct {
		Device string `json:"device"`
		Module string `json:"module"`
	}
	flow.Func(tools, "acquire", func(ctx context.Context, in names) (names, error) {
		call, _ := flow.CallFrom(ctx)
		_, err := w.cmdb.Acquire(ctx, cmdb.AcquireRequest{Owner: call.Execution, Key: call.Key, Module: "m", Names: in.Names, Count: len(in.Names), TTL: time.Hour})
		return in, err
	}, flow.WithEffect(flow.Keyed))
	flow.Func(tools, "join", func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	}, flow.WithEffect(flow.Pure))
	flow.Func(tools, "repair", func(ctx context.Context, in target) (struct{}, error) {
		if in.Module != "m" {
			t.Errorf("cleaned of %q", in.Module)
		}
		return struct{}{}, w.cmdb.Repair(ctx, in.Device)
	}, flow.WithEffect(flow.Keyed))
	if w.flow, err = flow.New(flow.Config{Store: flowmem.New(), Tools: tools, OnEvent: func(e flow.Event) {
		if e.Kind == flow.EventDone && w.holds != nil {
			w.holds.Ended()
		}
	}}); err != nil {
		t.Fatal(err)
	}
	w.holds, err = wiring.NewHolds(wiring.HoldsConfig{
		CMDB: w.cmdb, Flow: w.flow, Every: time.Hour,
		Serving:  func(device string) bool { return *w.serving.Load() == device },
		Withdraw: func(context.Context, string) error { w.gone.Add(1); return nil },
		Paused:   func(context.Context, string) (bool, error) { return w.paused.Load(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, w.flow.Run)
	for _, document := range []string{joining, cleaning} {
		if _, err := w.flow.Save(t.Context(), []byte(document)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// abandon runs an expansion whose last step a person skips.
func (w *leavings) abandon(t *testing.T, devices ...any) (id string) {
	t.Helper()
	id, err := w.flow.Start(t.Context(), "expand", map[string]any{"names": devices})
	if err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the last step runs", func() bool {
		x, err := w.flow.Get(t.Context(), id)
		return err == nil && x.Step == "callee"
	})
	if err := w.flow.Skip(t.Context(), id, flow.Intervention{Step: "callee", Actor: "ann", Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	return id
}

func (w *leavings) await(t *testing.T, name string, state cmdb.State) cmdb.Device {
	t.Helper()
	var have cmdb.Device
	l5test.Await(t, name+" is "+string(state), func() bool {
		var err error
		have, err = w.cmdb.Device(name)
		return err == nil && have.State == state
	})
	return have
}

// What an execution leaves held when a person skips its last step is in nobody's hands: it is cleaned and given back, or
// stays where callers are sent to it.
func TestNothingStaysHeldByWhatIsOver(t *testing.T) {
	t.Parallel()
	w := newLeavings(t)
	if _, err := w.cmdb.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "a person", Key: "k", Module: "m", Names: []string{"d2"}, Count: 1, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	id := w.abandon(t, "d1")
	l5test.Await(t, "it is over", func() bool {
		x, err := w.flow.Get(t.Context(), id)
		return err == nil && x.State.Ended()
	})
	if _, err := w.holds.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "d1 is held by execution "+id) {
		t.Errorf("before anybody looks after it doctor is told %v", err)
	}
	w.paused.Store(true)
	background(t, w.holds.Run) // also what ended before it ran
	left := w.await(t, "d1", cmdb.Faulty)
	if !strings.Contains(left.Fault, id) || w.gone.Load() != 1 {
		t.Errorf("left %+v, %d withdrawn", left, w.gone.Load())
	}
	if _, err := w.holds.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "zhiyun resume m") {
		t.Errorf("while automation is paused doctor is told %v", err)
	}
	w.paused.Store(false)
	w.holds.Ended()
	w.await(t, "d1", cmdb.Idle)
	if _, err := w.holds.Examine(t.Context()); err != nil {
		t.Errorf("doctor is told %v", err)
	}
	if d, err := w.cmdb.Device("d2"); err != nil || d.Holder != "a person" {
		t.Errorf("a person's device: %+v, %v", d, err)
	}

	serving := "d1"
	w.serving.Store(&serving)
	w.abandon(t, "d1")
	if d := w.await(t, "d1", cmdb.InService); d.Module != "m" {
		t.Errorf("in service: %+v", d)
	}
	runs, _, err := w.flow.List(t.Context(), flow.Filter{Flow: "clean"})
	if err != nil || len(runs) != 1 || runs[0].Actor != "holds" {
		t.Errorf("cleaned by %+v, %v", runs, err)
	}
}

// A device that somebody else has by now is theirs.
func TestForfeitIsTheHoldersAlone(t *testing.T) {
	t.Parallel()
	w := newLeavings(t)
	if _, err := w.cmdb.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "new", Key: "k", Module: "m", Names: []string{"d1"}, Count: 1, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := w.cmdb.Forfeit(t.Context(), "old", "d1", "over"); err == nil {
		t.Error("a device was taken from its holder")
	}
	if err := w.cmdb.Forfeit(t.Context(), "new", "d2", "over"); err == nil {
		t.Error("an idle device was forfeited")
	}
	if err := w.cmdb.Forfeit(t.Context(), "new", "d1", "over"); err != nil {
		t.Error(err)
	}
}
