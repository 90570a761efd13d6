//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/demo"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// ledger reads all the time what the server tells, and remembers it: what was told once is acknowledged, and must
// be told after any kill.
type ledger struct {
	api  *control.Client
	stop context.CancelFunc
	done chan struct{}

	mu         sync.Mutex                // guards what follows
	executions map[string]flow.Execution // as last seen
	changes    map[string]center.Change
	audit      map[int64]records.Entry
	faults     []string
}

func newLedger(t *testing.T, target string) *ledger {
	t.Helper()
	api, err := control.Dial(target, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{
		api: api, stop: cancel, done: make(chan struct{}),
		executions: make(map[string]flow.Execution), changes: make(map[string]center.Change), audit: make(map[int64]records.Entry),
	}
	go l.run(ctx)
	t.Cleanup(func() {
		cancel()
		<-l.done
		api.Close()
	})
	return l
}

// run ends with ctx; its owner waits for done.
func (l *ledger) run(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A server that is away tells nothing; what it tells, it must keep.
			_ = l.read(ctx, 50)
		}
	}
}

// read takes in the newest, and holds it against what was told before.
func (l *ledger) read(ctx context.Context, audit int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	executions, _, err := control.DecodeList[flow.Execution](l.api.Flows.List(ctx, connect.NewRequest(&pb.ListExecutionsRequest{Page: &pb.Page{Limit: 1000}})))
	if err != nil {
		return err
	}
	changes, _, err := control.DecodeList[center.Change](l.api.Changes.List(ctx, connect.NewRequest(&pb.ListChangesRequest{Page: &pb.Page{Limit: 1000}})))
	if err != nil {
		return err
	}
	entries, _, err := control.DecodeList[records.Entry](l.api.Ops.Audit(ctx, connect.NewRequest(&pb.AuditRequest{Page: &pb.Page{Limit: int32(audit)}})))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(executions, changes, entries)
	return nil
}

// take compares and remembers. The caller holds mu.
// I9: after a restart, state equals what was stored before.
func (l *ledger) take(executions []flow.Execution, changes []center.Change, entries []records.Entry) {
	for _, e := range executions {
		old, known := l.executions[e.ID]
		switch {
		case known && e.Seq < old.Seq:
			l.faults = append(l.faults, fmt.Sprintf("execution %s went back from event %d to %d", e.ID, old.Seq, e.Seq))
		case known && old.State.Ended() && old.State != e.State:
			l.faults = append(l.faults, fmt.Sprintf("execution %s had ended as %s and is %s", e.ID, old.State, e.State))
		}
		l.executions[e.ID] = e
	}
	for _, c := range changes {
		if old, known := l.changes[c.Key]; known && old.Undone != nil && c.Undone == nil {
			l.faults = append(l.faults, fmt.Sprintf("change %s is no longer taken back", c.Key))
		}
		l.changes[c.Key] = c
	}
	for _, e := range entries {
		if old, known := l.audit[e.ID]; known {
			if diff := cmp.Diff(old, e); diff != "" {
				l.faults = append(l.faults, fmt.Sprintf("audit entry %d is another one: %s", e.ID, diff))
			}
		}
		l.audit[e.ID] = e
	}
}

// verify reads everything, and tells what was acknowledged and is gone.
func (l *ledger) verify() error {
	l.mu.Lock()
	wanted := [3]int{len(l.executions), len(l.changes), len(l.audit)}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	executions, err := all(func(p *pb.Page) ([]flow.Execution, string, error) {
		return control.DecodeList[flow.Execution](l.api.Flows.List(ctx, connect.NewRequest(&pb.ListExecutionsRequest{Page: p})))
	})
	if err != nil {
		return err
	}
	changes, err := all(func(p *pb.Page) ([]center.Change, string, error) {
		return control.DecodeList[center.Change](l.api.Changes.List(ctx, connect.NewRequest(&pb.ListChangesRequest{Page: p})))
	})
	if err != nil {
		return err
	}
	entries, err := all(func(p *pb.Page) ([]records.Entry, string, error) {
		return control.DecodeList[records.Entry](l.api.Ops.Audit(ctx, connect.NewRequest(&pb.AuditRequest{Page: p})))
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(executions) < wanted[0] || len(changes) < wanted[1] || len(entries) < wanted[2] {
		l.faults = append(l.faults, fmt.Sprintf("acknowledged and gone: %d of %d executions, %d of %d changes, %d of %d audit entries are left",
			len(executions), wanted[0], len(changes), wanted[1], len(entries), wanted[2]))
	}
	l.take(executions, changes, entries)
	var faults []error
	for _, f := range l.faults {
		faults = append(faults, errors.New(f))
	}
	return errors.Join(faults...)
}

func all[T any](list func(*pb.Page) ([]T, string, error)) ([]T, error) {
	var out []T
	page := &pb.Page{Limit: 1000}
	for {
		items, next, err := list(page)
		if err != nil {
			return nil, err
		}
		out = append(out, items...)
		if next == "" {
			return out, nil
		}
		page = &pb.Page{Limit: 1000, After: next}
	}
}

// traffic is what the callers told last.
type traffic struct {
	mu   sync.Mutex
	last demo.Progress // guarded by mu
}

// hear takes in what the callers tell, until they end.
func (c *traffic) hear(in io.Reader) {
	decoder := json.NewDecoder(in)
	for {
		var p demo.Progress
		if decoder.Decode(&p) != nil {
			return
		}
		c.mu.Lock()
		c.last = p
		c.mu.Unlock()
	}
}

func (c *traffic) progress() demo.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// settled waits until the world is as an ended execution must leave it, and fails the test if it does not become so: with
// the module on the devices that serve, and no trace of it elsewhere.
func (w *world) settled(e flow.Execution, serving ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("the world is settled after %s %s (%s)", e.Flow, e.State, e.ID), func() error {
		return errors.Join(w.devices(serving), w.registered(serving), w.quiet(e), w.running(serving))
	})
	w.until("the record is whole", func() error {
		err := w.ledger.verify()
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		if len(w.ledger.faults) > 0 {
			w.t.Fatal(err)
		}
		return err
	})
}

// devices checks the pool.
// I10: no device is held by two executions, and none is lost.
func (w *world) devices(serving []string) error {
	list, err := ask(func(ctx context.Context) ([]cmdb.Device, error) {
		list, _, err := control.DecodeList[cmdb.Device](w.api.Resources.List(ctx, connect.NewRequest(&pb.ListResourcesRequest{Kind: string(cmdb.KindDevice)})))
		return list, err
	})
	if err != nil {
		return err
	}
	if len(list) != len(pool)+1 {
		w.t.Fatalf("%d devices, not %d: %v", len(list), len(pool)+1, list)
	}
	var faults []error
	for _, d := range list {
		want, of := cmdb.Idle, ""
		switch {
		case d.Name == caller:
			want, of = cmdb.InService, web
		case slices.Contains(serving, d.Name):
			want, of = cmdb.InService, module
		}
		if d.State != want || d.Module != of || d.Holder != "" {
			faults = append(faults, fmt.Errorf("device %s is %s of %q, holder %q, fault %q; want %s of %q", d.Name, d.State, d.Module, d.Holder, d.Fault, want, of))
		}
	}
	return errors.Join(faults...)
}

// registered checks the name service and the virtual address: exactly who serves is there, at full weight.
func (w *world) registered(serving []string) error {
	instances, err := ask(func(ctx context.Context) ([]l5server.InstanceStatus, error) {
		list, _, err := control.DecodeList[l5server.InstanceStatus](w.api.Registry.Instances(ctx, connect.NewRequest(&pb.ServiceRequest{Service: module})))
		return list, err
	})
	if err != nil {
		return err
	}
	var got, behind []string
	var faults []error
	for _, i := range instances {
		got = append(got, i.Device)
		if i.Share != 100 || i.State != l5.StateUp || i.Suspect || !i.Live || i.Down != "" {
			faults = append(faults, fmt.Errorf("instance %s: share %d, state %v, suspect %t, live %t, down %q", i.Device, i.Share, i.State, i.Suspect, i.Live, i.Down))
		}
	}
	members, err := ask(func(ctx context.Context) ([]center.RealServer, error) {
		list, _, err := control.DecodeList[center.RealServer](w.api.Virtual.List(ctx, connect.NewRequest(&pb.RealServerRequest{})))
		return list, err
	})
	if err != nil {
		return err
	}
	for _, m := range members {
		behind = append(behind, m.Device)
	}
	slices.Sort(got)
	slices.Sort(behind)
	want := slices.Sorted(slices.Values(serving))
	if !slices.Equal(got, want) || !slices.Equal(behind, want) {
		faults = append(faults, fmt.Errorf("registered are %v, behind the virtual address %v; want %v", got, behind, want))
	}
	return errors.Join(faults...)
}

// quiet checks that nothing of an ended execution goes on: mutes, silences, rollouts; and what its change record says.
func (w *world) quiet(e flow.Execution) error {
	_, err := ask(func(ctx context.Context) (any, error) {
		mutes, _, err := control.DecodeList[center.Mute](w.api.Notify.Mutes(ctx, connect.NewRequest(&pb.NotifyListRequest{})))
		if err != nil {
			return nil, err
		}
		silences, _, err := control.DecodeList[center.Silence](w.api.Notify.Silences(ctx, connect.NewRequest(&pb.NotifyListRequest{})))
		if err != nil {
			return nil, err
		}
		if len(mutes)+len(silences) > 0 {
			return nil, fmt.Errorf("left behind: mutes %v, silences %v", mutes, silences)
		}
		rollouts, _, err := control.DecodeList[gray.Rollout](w.api.Gray.List(ctx, connect.NewRequest(&pb.ListRolloutsRequest{Open: true})))
		if err != nil {
			return nil, err
		}
		if len(rollouts) > 0 {
			return nil, fmt.Errorf("rollouts are under way: %v", rollouts)
		}
		changes, _, err := control.DecodeList[center.Change](w.api.Changes.List(ctx, connect.NewRequest(&pb.ListChangesRequest{Execution: e.ID})))
		if err != nil {
			return nil, err
		}
		standing := slices.DeleteFunc(changes, func(c center.Change) bool { return c.Undone != nil })
		if want := map[bool]int{true: 1}[e.State == flow.Done]; len(standing) != want {
			return nil, fmt.Errorf("%d change records stand of an execution that is %s: %v", len(standing), e.State, standing)
		}
		return nil, nil
	})
	return err
}

// running checks what is on the devices: one process where the module serves, and elsewhere no process and no file of it.
func (w *world) running(serving []string) error {
	var faults []error
	for _, device := range pool {
		want := 0
		if slices.Contains(serving, device) {
			want = 1
		}
		if pids := w.processes(device); len(pids) != want {
			faults = append(faults, fmt.Errorf("%d processes run on %s, not %d: %v", len(pids), device, want, pids))
		}
		if ended(w.environment.AgentDone(device)) {
			faults = append(faults, fmt.Errorf("the agent of %s is not back", device))
		}
		for _, file := range []string{"etc/sample.yaml", "data/motd.txt", "data/sample/device"} {
			_, err := os.Lstat(filepath.Join(w.environment.Root(device), file))
			if there := err == nil; there != (want == 1) {
				faults = append(faults, fmt.Errorf("%s on %s: there %t, want %t", file, device, there, want == 1))
			}
		}
	}
	return errors.Join(faults...)
}
