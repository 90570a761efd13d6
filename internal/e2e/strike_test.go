//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

// aimAt sets traps, one for each aim.
func (w *world) aimAt(aims ...aim) {
	w.t.Helper()
	w.killing.Lock()
	clear(w.plan)
	w.sprung = nil
	for _, a := range aims {
		w.plan[a.tool] = a
	}
	w.killing.Unlock()
	for _, a := range aims {
		w.snare.set(w.t, a.tool, a.moment)
	}
}

// strike is called by a trap that went off; its tool waits until it returns.
func (w *world) strike(h hit) {
	w.killing.Lock()
	a, ok := w.plan[h.Tool]
	delete(w.plan, h.Tool)
	if ok {
		w.revive.Add(1)
	}
	w.killing.Unlock()
	if !ok {
		return
	}
	if h.Device != "" {
		a.device = h.Device
	}
	if a.moment != during {
		defer w.revive.Done()
		w.kill(a)
		return
	}
	go func() { // waited for by revive
		defer w.revive.Done()
		pause(a.delay)
		w.kill(a)
	}()
}

// pause waits: a delay is what a kill at a moment between two events is aimed with.
func pause(d time.Duration) { <-time.After(d) }

// kill ends the target with SIGKILL, and has it restarted after a while, as an init system would.
func (w *world) kill(a aim) {
	w.killing.Lock()
	defer w.killing.Unlock()
	switch a.target {
	case cancel:
		w.again(a, func(context.Context) error { return w.order(w.cancel) })
	case skip:
		w.again(a, func(context.Context) error { return w.order(w.skip) })
	case server:
		done := w.environment.ServerDone()
		if ended(done) {
			return // killed already, and not back yet
		}
		syscall.Kill(w.environment.ServerPID(), syscall.SIGKILL) // it may have ended by itself: done tells
		<-done
		w.again(a, func(ctx context.Context) error { return w.environment.StartServer(ctx) })
	case agent:
		done := w.environment.AgentDone(a.device)
		if ended(done) {
			return
		}
		syscall.Kill(w.environment.AgentPID(a.device), syscall.SIGKILL)
		<-done
		w.again(a, func(context.Context) error {
			return w.environment.StartAgent(dev.Device{Name: a.device, Addr: address(a.device)})
		})
	case smpl:
		pids := w.processes(a.device)
		if len(pids) == 0 { // nothing runs there yet
			a.device = resident
			pids = w.processes(resident)
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	w.kills[a.target]++
	w.sprung = append(w.sprung, fmt.Sprintf("%s (%s)", a, a.device))
}

// order has the execution under way do as it is told, as soon as the server takes it.
func (w *world) order(what func(ctx context.Context, id string) error) error {
	w.killing.Lock()
	id := w.current
	w.killing.Unlock()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(hang)
	for {
		_, err := ask(func(ctx context.Context) (any, error) { return nil, what(ctx, id) })
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit:
			return err
		}
	}
}

func (w *world) cancel(ctx context.Context, id string) error {
	_, err := w.api.Flows.Cancel(ctx, connect.NewRequest(&pb.ExecutionRequest{Id: id, Cause: because("")}))
	return err
}

func (w *world) skip(ctx context.Context, id string) error {
	_, err := w.api.Flows.Intervene(ctx, connect.NewRequest(&pb.InterveneRequest{Id: id, Verb: flow.OrderSkip, Step: "callee", Cause: because("")}))
	return err
}

// again starts what was killed, after its time away. The caller holds killing.
func (w *world) again(a aim, start func(context.Context) error) {
	w.revive.Add(1)
	go func() { // waited for by revive
		defer w.revive.Done()
		pause(a.down)
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if err := start(ctx); err != nil {
			w.t.Errorf("restart after %s: %v", a, err)
		}
	}()
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// struck waits until everything that was killed is back, takes away the traps that are left, and tells of both.
func (w *world) struck() (sprung []string, left []aim) {
	w.snare.clear()
	w.killing.Lock()
	for _, a := range w.plan {
		left = append(left, a)
	}
	clear(w.plan)
	w.killing.Unlock()
	w.revive.Wait()
	w.killing.Lock()
	defer w.killing.Unlock()
	return slices.Clone(w.sprung), left
}

// between draws a time.
func (w *world) between(least, most time.Duration) time.Duration {
	w.killing.Lock()
	defer w.killing.Unlock()
	return least + time.Duration(w.random.Int64N(int64(most-least)))
}
