package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// CalleeJoinIn is what l5.callee.join takes.
type CalleeJoinIn struct {
	Module   string    `json:"module"`
	Services []Service `json:"services"`
	Devices  []Device  `json:"devices"`
}

// CalleeJoinOut is what l5.callee.join tells.
type CalleeJoinOut struct {
	Rollouts []RolloutEnd `json:"rollouts"`
	Lost     []string     `json:"lost" doc:"devices that were lost on the way, and how: the others went on without them"`
}

// RolloutEnd is how the rollout of a service ended.
type RolloutEnd struct {
	ID      string   `json:"id"`
	Service string   `json:"service"`
	State   string   `json:"state"`
	Reason  string   `json:"reason"`
	Lost    []string `json:"lost" doc:"addresses of devices that were lost on the way"`
}

// rolloutID is the same for every attempt under a key, so that a rollout is begun once and found again.
func rolloutID(key, service string) string { return key + ":" + service }

// CalleeJoin takes devices to full weight: it registers them under each service id with share 0, begins a rollout per
// service, waits until gray has taken them to 100 %, and puts them into service. Until then the execution holds them, so
// that nobody else takes or releases them. It can be killed and run again at any point: the rollouts go on without it, and
// another attempt under the same key finds them. Codes: gray.aborted, device.state, device.lost, input.invalid.
func CalleeJoin(ctx context.Context, env Env, in CalleeJoinIn) (CalleeJoinOut, error) {
	out := CalleeJoinOut{Rollouts: []RolloutEnd{}, Lost: []string{}}
	alive, err := env.alive(ctx, in)
	if err != nil {
		return out, err
	}
	byService, err := newInstances(CalleeJoinIn{in.Module, in.Services, alive})
	if err != nil {
		return out, err
	}
	for _, service := range in.Services {
		if err := env.begin(ctx, in.Module, service, alive, byService[service.ID]); err != nil {
			return out, err
		}
	}
	for _, service := range in.Services {
		end, err := env.await(ctx, rolloutID(env.Key, service.ID), func() error { return env.renew(ctx, in) })
		if err != nil {
			return out, err
		}
		if end.Status.State != gray.Done {
			return out, fail("gray.aborted", "the rollout of %s is %s at %d %%: %s", service.ID, end.Status.State, end.Status.Percent, end.Status.Reason)
		}
		out.Rollouts = append(out.Rollouts, RolloutEnd{
			ID: end.ID, Service: service.ID, State: string(end.Status.State), Reason: end.Status.Reason.String(), Lost: append([]string{}, end.Status.Lost...),
		})
	}
	if out.Lost, err = env.lost(ctx, in); err != nil {
		return out, err
	}
	return out, env.serve(ctx, in)
}

// lost are the devices that have gone out of use since they were acquired.
func (e Env) lost(ctx context.Context, in CalleeJoinIn) ([]string, error) {
	out := []string{}
	for _, device := range in.Devices {
		d, err := resource[cmdb.Device](ctx, e, cmdb.KindDevice, device.Name)
		if err != nil {
			return nil, err
		}
		if d.State == cmdb.Faulty || d.State == cmdb.Retired {
			out = append(out, fmt.Sprintf("%s is %s: %s", d.Name, d.State, d.Fault))
		}
	}
	return out, nil
}

// newInstances are the registrations of the devices, by service.
func newInstances(in CalleeJoinIn) (map[string][]l5.Instance, error) {
	out := make(map[string][]l5.Instance)
	for _, service := range in.Services {
		for _, device := range in.Devices {
			addr, err := device.endpoint(service.Port)
			if err != nil {
				return nil, err
			}
			out[service.ID] = append(out[service.ID], l5.Instance{
				Service: service.ID, Addr: addr, Device: device.Name, Module: in.Module, Weight: service.weight(device.Type), State: l5.StateUp,
				// The live stream of the device's agent is the lease.
				Owner: device.Name,
			})
		}
	}
	return out, nil
}

// alive are the devices that are not lost. One that was lost since it was acquired is left out: the others go on without
// it, and scale replaces it. What is neither held by the execution nor already in service is refused.
func (e Env) alive(ctx context.Context, in CalleeJoinIn) ([]Device, error) {
	var alive []Device
	for _, device := range in.Devices {
		d, err := resource[cmdb.Device](ctx, e, cmdb.KindDevice, device.Name)
		switch {
		case err != nil:
			return nil, err
		case d.State == cmdb.Faulty || d.State == cmdb.Retired:
			e.Logger.Warn("a device was lost on the way", "device", device.Name, "state", d.State, "fault", d.Fault)
		case d.State == cmdb.Held && d.Holder == e.Execution, d.State == cmdb.InService && d.Module == in.Module:
			alive = append(alive, device)
		default:
			return nil, fail("device.state", "device %s is %s (holder %q), not held by %s; acquire it first", device.Name, d.State, d.Holder, e.Execution)
		}
	}
	if len(alive) == 0 {
		return nil, fail("device.lost", "all %d devices were lost on the way", len(in.Devices))
	}
	return alive, nil
}

// held are the devices of a join that the execution holds.
func (e Env) held(ctx context.Context, in CalleeJoinIn) ([]string, error) {
	var out []string
	for _, device := range in.Devices {
		d, err := resource[cmdb.Device](ctx, e, cmdb.KindDevice, device.Name)
		if err != nil {
			return nil, err
		}
		if d.State == cmdb.Held && d.Holder == e.Execution {
			out = append(out, device.Name)
		}
	}
	return out, nil
}

// renew keeps the devices while gray takes its time.
func (e Env) renew(ctx context.Context, in CalleeJoinIn) error {
	held, err := e.held(ctx, in)
	if err != nil || len(held) == 0 {
		return err
	}
	_, err = e.Client.Devices.Renew(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: e.Execution, Names: held, Ttl: durationpb.New(joinHold), Cause: e.cause()}))
	return err
}

// joinHold is how long devices stay held without a word from the join: a server may be down for a while.
const joinHold = 24 * time.Hour

// serve puts the devices that the execution holds into service.
func (e Env) serve(ctx context.Context, in CalleeJoinIn) error {
	held, err := e.held(ctx, in)
	if err != nil || len(held) == 0 {
		return err
	}
	_, err = e.Client.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: e.Execution, Names: held, Module: in.Module, Cause: e.cause()}))
	return err
}

// begin registers the instances of one service and starts their rollout, unless that was done before.
func (e Env) begin(ctx context.Context, module string, service Service, devices []Device, instances []l5.Instance) error {
	id := rolloutID(e.Key, service.ID)
	_, err := e.Client.Gray.Get(ctx, connect.NewRequest(&pb.RolloutRequest{Id: id}))
	if err == nil {
		// It may have lost members since: what is registered is gray's and the agents' business now.
		return nil
	}
	if !isCode(err, "rollout.not_found") {
		return err
	}
	rollout := gray.Rollout{ID: id, Service: service.ID, Module: module}
	request := &pb.RegisterRequest{Cause: e.cause()}
	for i, instance := range instances {
		encoded, err := json.Marshal(instance)
		if err != nil {
			return fmt.Errorf("encode an instance: %w", err)
		}
		request.Instances = append(request.Instances, encoded)
		rollout.New = append(rollout.New, gray.Member{ID: instance.Addr, Cores: max(devices[i].Cores, 1)})
	}
	if _, err := e.Client.Registry.Register(ctx, connect.NewRequest(request)); err != nil {
		return err
	}
	encoded, err := json.Marshal(rollout)
	if err != nil {
		return fmt.Errorf("encode a rollout: %w", err)
	}
	_, err = e.Client.Gray.Start(ctx, connect.NewRequest(&pb.StartRolloutRequest{Rollout: encoded, Cause: e.cause()}))
	return err
}

// await waits for the end of a rollout, through restarts of the server. between is called before each wait, which lasts
// 15 s at most.
func (e Env) await(ctx context.Context, id string, between func() error) (gray.Rollout, error) {
	said, wait := "", 2*time.Second // what holds it from the beginning is told soon
	for ; ; wait = 15 * time.Second {
		if err := between(); err != nil && !control.Retryable(err) {
			return gray.Rollout{}, err
		}
		rollout, err := control.Decode[gray.Rollout](e.Client.Gray.Await(ctx, connect.NewRequest(&pb.AwaitRolloutRequest{
			Id: id, Wait: durationpb.New(wait),
		})))
		switch {
		case ctx.Err() != nil:
			return rollout, ctx.Err()
		case err == nil && rollout.Status.State.Final():
			return rollout, nil
		case err == nil:
			if now := fmt.Sprintf("the rollout of %s is %s at %d %%: %s", rollout.Service, rollout.Status.State, rollout.Status.Percent, rollout.Status.Verdict); now != said {
				said = now
				e.Waits(said)
			}
			e.Logger.Info("waiting for gray", "rollout", id, "state", rollout.Status.State, "percent", rollout.Status.Percent, "verdict", rollout.Status.Verdict.String())
			continue
		case !control.Retryable(err):
			return rollout, err
		}
		if err := rest(ctx, 500*time.Millisecond); err != nil {
			return rollout, err
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// CalleeLeaveIn is what l5.callee.leave takes: also, to undo, the input of l5.callee.join.
type CalleeLeaveIn struct {
	Module   string         `json:"module"`
	Services []Service      `json:"services"`
	Devices  []Device       `json:"devices"`
	Keep     bool           `json:"keep,omitempty" doc:"leave the devices in the state that they are in; else those in service come into the execution's hands"`
	Quiet    string         `json:"quiet,omitempty" doc:"how long no call may be reported before the instances go; default 2s"`
	Done     *CalleeJoinOut `json:"done,omitempty"`
}

// CalleeLeaveOut is what l5.callee.leave tells.
type CalleeLeaveOut struct {
	Instances []l5.Instance `json:"instances" doc:"that were taken out, as they stood"`
}

// CalleeLeave takes devices out of the name service without a failed call: rollouts of the key are aborted, weights go
// to 0, calls in flight end, then the instances go. Nothing happens for what is not registered.
func CalleeLeave(ctx context.Context, env Env, in CalleeLeaveIn) (CalleeLeaveOut, error) {
	out := CalleeLeaveOut{Instances: []l5.Instance{}}
	for _, service := range in.Services {
		if err := env.abort(ctx, rolloutID(env.Key, service.ID)); err != nil {
			return out, err
		}
	}
	if _, err := Drain(ctx, env, DrainIn{Services: in.Services, Devices: in.Devices, Quiet: in.Quiet}); err != nil {
		return out, err
	}
	standing, err := env.standing(ctx, in.Services, in.Devices)
	if err != nil {
		return out, err
	}
	for _, s := range standing {
		if _, err := env.Client.Registry.Deregister(ctx, connect.NewRequest(&pb.InstanceRequest{Service: s.Service, Addr: s.Addr, Cause: env.cause()})); err != nil {
			return out, err
		}
		out.Instances = append(out.Instances, s.Instance)
	}
	if in.Keep {
		return out, nil
	}
	return out, env.takeBack(ctx, in)
}

// abort ends a rollout, if there is one, and waits until its members are at 0.
func (e Env) abort(ctx context.Context, id string) error {
	rollout, err := control.Decode[gray.Rollout](e.Client.Gray.Abort(ctx, connect.NewRequest(&pb.RolloutRequest{Id: id, Cause: e.cause()})))
	switch {
	case isCode(err, "rollout.not_found"), isCode(err, "rollout.superseded"), isCode(err, "absent"):
		return nil
	case err != nil:
		return err
	}
	for !rollout.Status.State.Final() {
		if rollout, err = e.await(ctx, id, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// standing are the instances of devices that are registered now.
func (e Env) standing(ctx context.Context, services []Service, devices []Device) ([]l5server.InstanceStatus, error) {
	var out []l5server.InstanceStatus
	for _, service := range services {
		there, _, err := control.DecodeList[l5server.InstanceStatus](e.Client.Registry.Instances(ctx, connect.NewRequest(&pb.ServiceRequest{Service: service.ID})))
		if err != nil {
			return nil, err
		}
		for _, device := range devices {
			addr, err := device.endpoint(service.Port)
			if err != nil {
				return nil, err
			}
			for _, s := range there {
				if s.Addr == addr {
					out = append(out, s)
				}
			}
		}
	}
	return out, nil
}

// takeBack takes devices that are in service into the execution's hands: they are given back from there.
func (e Env) takeBack(ctx context.Context, in CalleeLeaveIn) error {
	var wanted []string
	for _, device := range in.Devices {
		d, err := resource[cmdb.Device](ctx, e, cmdb.KindDevice, device.Name)
		if err != nil && !isCode(err, "resource.not_found") {
			return err
		}
		if err == nil && d.State == cmdb.InService && d.Module == in.Module {
			wanted = append(wanted, device.Name)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	_, err := e.Client.Devices.Hold(ctx, connect.NewRequest(&pb.DevicesRequest{
		Owner: e.Execution, Names: wanted, Module: in.Module, Ttl: durationpb.New(forget), Cause: e.cause(),
	}))
	return err
}

// CalleeRestoreIn is the input of l5.callee.leave and what it did.
type CalleeRestoreIn struct {
	Module   string          `json:"module"`
	Services []Service       `json:"services"`
	Devices  []Device        `json:"devices"`
	Keep     bool            `json:"keep,omitempty"`
	Quiet    string          `json:"quiet,omitempty"`
	Done     *CalleeLeaveOut `json:"done,omitempty"`
}

// CalleeRestore registers instances again as they stood. If that is not known, those of the devices that are missing are
// registered without weight, which l5.undrain gives back.
func CalleeRestore(ctx context.Context, env Env, in CalleeRestoreIn) (CalleeLeaveOut, error) {
	out := CalleeLeaveOut{Instances: []l5.Instance{}}
	again := []l5.Instance{}
	if in.Done != nil {
		again = in.Done.Instances
	} else {
		byService, err := newInstances(CalleeJoinIn{Module: in.Module, Services: in.Services, Devices: in.Devices})
		if err != nil {
			return out, err
		}
		for _, instances := range byService {
			again = append(again, instances...)
		}
	}
	if len(again) == 0 {
		return out, nil
	}
	request := &pb.RegisterRequest{Cause: env.cause()}
	for _, instance := range again {
		instance.Suspect = false
		encoded, err := json.Marshal(instance)
		if err != nil {
			return out, errors.Join(errors.New("encode an instance"), err)
		}
		request.Instances = append(request.Instances, encoded)
	}
	_, err := env.Client.Registry.Register(ctx, connect.NewRequest(request))
	out.Instances = again
	return out, err
}
