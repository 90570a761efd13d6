package main

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// poolIn is the input of the tools that work on all devices of an execution. Done is what undo tools get: the output
// of what they undo.
type poolIn struct {
	Module  string         `json:"module"`
	Devices []string       `json:"devices"`
	Done    map[string]any `json:"done,omitempty"`
}

// deviceIn is the input of those that work on one.
type deviceIn struct {
	Device string         `json:"device"`
	Done   map[string]any `json:"done,omitempty"`
}

type none struct{}

// tools are the steps of the two flows, as Go functions. Each may be run again with the same key, and each that
// changes something says how it is undone.
func (h *house) tools() *flow.Tools {
	tools := flow.NewTools()
	keyed, undo := flow.WithEffect(flow.Keyed), flow.WithUndo
	flow.Func(tools, "device.acquire", h.acquire, keyed, undo("device.release"))
	flow.Func(tools, "device.release", h.release, keyed)
	flow.Func(tools, "device.serve", h.serve, keyed)
	flow.Func(tools, "device.hold", h.hold, keyed, undo("device.serve"))
	flow.Func(tools, "config.write", func(_ context.Context, in deviceIn) (none, error) {
		return none{}, h.fleet.writeConfig(in.Device)
	}, keyed, undo("config.remove"))
	flow.Func(tools, "config.remove", func(_ context.Context, in deviceIn) (none, error) {
		return none{}, h.fleet.removeConfig(in.Device)
	}, keyed, undo("config.write"))
	flow.Func(tools, "program.start", func(_ context.Context, in deviceIn) (none, error) {
		return none{}, h.fleet.start(in.Device)
	}, keyed, undo("program.stop"))
	flow.Func(tools, "program.stop", func(ctx context.Context, in deviceIn) (none, error) {
		return none{}, h.fleet.stop(ctx, in.Device)
	}, keyed, undo("program.start"))
	flow.Func(tools, "name.join", h.join, keyed, undo("name.leave"))
	flow.Func(tools, "name.leave", h.leave, keyed)
	flow.Func(tools, "gray.roll", h.roll, keyed)
	return tools
}

// owner is who holds the devices: the execution.
func owner(ctx context.Context) string {
	call, _ := flow.CallFrom(ctx)
	return call.Execution
}

func (h *house) acquire(ctx context.Context, in poolIn) (none, error) {
	call, _ := flow.CallFrom(ctx)
	_, err := h.cmdb.Acquire(ctx, cmdb.AcquireRequest{Owner: call.Execution, Key: call.Key, Module: in.Module, Names: in.Devices})
	return none{}, err
}

func (h *house) release(ctx context.Context, in poolIn) (none, error) {
	_, err := h.cmdb.Release(ctx, owner(ctx), in.Devices)
	return none{}, err
}

func (h *house) serve(ctx context.Context, in poolIn) (none, error) {
	for _, device := range in.Devices {
		if err := h.cmdb.Serve(ctx, owner(ctx), device, in.Module); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

func (h *house) hold(ctx context.Context, in poolIn) (none, error) {
	_, err := h.cmdb.Hold(ctx, owner(ctx), in.Devices, time.Hour)
	return none{}, err
}

// join registers a device's program with share 0: known, and called by nobody yet.
func (h *house) join(ctx context.Context, in deviceIn) (none, error) {
	addr, err := h.fleet.addr(in.Device)
	if err != nil {
		return none{}, err
	}
	return none{}, h.names.Register(ctx, []l5.Instance{{Service: module, Addr: addr, Device: in.Device, Module: module}})
}

// leave takes new calls away, waits until callers know and calls in flight are over, and takes the registration away.
func (h *house) leave(ctx context.Context, in deviceIn) (none, error) {
	for _, instance := range h.names.Instances(module) {
		if instance.Device != in.Device {
			continue
		}
		if err := h.names.Drain(ctx, module, instance.Addr); err != nil {
			return none{}, err
		}
		select {
		case <-ctx.Done():
			return none{}, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		return none{}, h.names.Deregister(ctx, module, instance.Addr)
	}
	return none{}, nil
}

// roll takes the new instances to full weight, and fails if gray takes them back. The step's key is the rollout's ID:
// a second attempt finds the first one's.
func (h *house) roll(ctx context.Context, in poolIn) (none, error) {
	call, _ := flow.CallFrom(ctx)
	policy := gray.Deck()
	policy.MinRequests, policy.Soak, policy.GapReset = 10, 300*time.Millisecond, time.Second
	rollout := gray.Rollout{ID: call.Key, Service: in.Module, Module: in.Module, Policy: policy, Actor: "flow"}
	for _, device := range in.Devices {
		addr, err := h.fleet.addr(device)
		if err != nil {
			return none{}, err
		}
		rollout.New = append(rollout.New, gray.Member{ID: addr, Cores: 1})
	}
	started, err := h.gray.Start(ctx, rollout)
	if err != nil {
		return none{}, err
	}
	for event, err := range h.gray.Watch(ctx, started.ID) {
		switch {
		case err != nil:
			return none{}, err
		case event.To == gray.Aborted:
			return none{}, flow.Fatal(fmt.Errorf("the rollout was taken back: %s", event.Reason))
		}
	}
	return none{}, ctx.Err()
}
