package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
)

// planners are the plan modes of the tools, by name: what a call would touch, and what it would return. Each only reads. A tool of effect
// pure that looks at what steps before it have done has one as well: there is nothing to look at yet.
var planners = map[string]func(context.Context, Env, []byte) (any, error){
	"notify.mute":        planner(planMute),
	"permission.request": planner(planRequest),
	"device.acquire":     planner(planAcquire),
	"alert.silence":      planner(planSilence),
	"change.report":      planner(planReport),
	"permission.check":   looks[PermissionRequestIn]("sees that the grants are in force then"),
	"test.run":           looks[TestRunIn]("tests what the device is then"),
	"vip.add":            planner(planVIPAdd),
	"l5.callee.join":     planner(planJoin),
	"alert.unsilence":    planner(planUnsilence),
	"notify.unmute":      planner(planUnmute),
	"device.hold":        planner(planHold),
	"device.release":     planner(planRelease),
	"l5.drain":           planner(planDrain),
	"vip.remove":         planner(planVIPRemove),
	"l5.callee.leave":    planner(planLeave),
	"permission.revoke":  planner(planRevoke),
}

// planned is what a planner answers.
type planned struct {
	Touches []flow.Touch `json:"touches"`
	Output  any          `json:"output,omitempty"` // nil: it cannot tell
	Text    string       `json:"text,omitempty"`
}

func (p *planned) touch(kind, name, change string, args ...any) {
	p.Touches = append(p.Touches, flow.Touch{Kind: kind, Name: name, Change: fmt.Sprintf(change, args...)})
}

func planner[In any](plan func(context.Context, Env, In) (planned, error)) func(context.Context, Env, []byte) (any, error) {
	return func(ctx context.Context, env Env, input []byte) (any, error) {
		var in In
		if err := json.Unmarshal(input, &in); err != nil {
			return nil, fail("input.invalid", "%v", err)
		}
		env, err := env.check(false)
		if err != nil {
			return nil, err
		}
		out, err := plan(ctx, env, in)
		if out.Touches == nil {
			out.Touches = []flow.Touch{}
		}
		return out, err
	}
}

// looks is the plan of a tool that changes nothing and cannot look yet.
func looks[In any](text string) func(context.Context, Env, []byte) (any, error) {
	return planner(func(context.Context, Env, In) (planned, error) { return planned{Text: text}, nil })
}

func planMute(ctx context.Context, env Env, in NotifyMuteIn) (p planned, err error) {
	expiry, err := span("expiry", in.Expiry, forget)
	if err != nil {
		return p, err
	}
	if _, err := module(ctx, env, in.Module); err != nil {
		return p, err
	}
	p.touch("mute", in.Module, "its load events are muted, for %s at most", expiry)
	p.Output = NotifyMuteOut{Key: env.Key}
	return p, nil
}

func planUnmute(_ context.Context, _ Env, in NotifyUnmuteIn) (p planned, err error) {
	p.touch("mute", in.Key, "is lifted")
	p.Output = Lifted{in.Key}
	return p, nil
}

func planRequest(ctx context.Context, env Env, in PermissionRequestIn) (p planned, err error) {
	if _, err := module(ctx, env, in.Caller); err != nil {
		return p, err
	}
	for _, service := range in.Services {
		if _, err := PermissionCheck(ctx, env, PermissionRequestIn{in.Caller, []string{service}}); err != nil {
			p.touch("grant", in.Caller+" -> "+service, "is asked for: %s", named(err).Code)
		}
	}
	p.Output = PermissionOut{Active: append([]string{}, in.Services...)}
	return p, nil
}

func planRevoke(_ context.Context, _ Env, in PermissionRevokeIn) (p planned, err error) {
	for _, service := range in.Services {
		p.touch("grant", in.Caller+" -> "+service, "is let go of, if nobody else holds it")
	}
	return p, nil
}

// planAcquire names the devices that would be reserved: the first named that are idle now.
func planAcquire(ctx context.Context, env Env, in DeviceAcquireIn) (p planned, err error) {
	if _, err := module(ctx, env, in.Module); err != nil {
		return p, err
	}
	var idle []cmdb.Device
	for _, name := range in.Names {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if err != nil {
			return p, err
		}
		if d.State == cmdb.Idle && len(idle) < in.Count {
			idle = append(idle, d)
			p.touch("device", name, "%s -> %s", d.State, cmdb.Held)
		}
	}
	if in.Count < 1 || len(idle) < in.Count {
		return p, fail("device.none", "%d devices are wanted, and %d of the %d named are idle", in.Count, len(idle), len(in.Names))
	}
	out := DeviceAcquireOut{Devices: []Device{}, Names: []string{}, Init: []File{}, Installs: []Installment{}, Scripts: []Scripting{}, Starts: []Starting{}}
	p.Output, err = out.of(ctx, env, in, idle)
	return p, err
}

func planHold(ctx context.Context, env Env, in DeviceHoldIn) (p planned, err error) {
	for _, name := range in.Names {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if err != nil {
			return p, err
		}
		if d.State != cmdb.InService || d.Module != in.Module {
			return p, fail("device.state", "device %s is %s of module %q, not in service of %s", name, d.State, d.Module, in.Module)
		}
		p.touch("device", name, "%s -> %s", d.State, cmdb.Held)
	}
	p.Output = in.held()
	return p, nil
}

func planRelease(_ context.Context, _ Env, in DeviceReleaseIn) (p planned, err error) {
	for _, name := range in.Names {
		p.touch("device", name, "%s -> %s", cmdb.Held, cmdb.Idle)
	}
	p.Output = DeviceReleaseOut{Released: append([]string{}, in.Names...)}
	return p, nil
}

func planSilence(ctx context.Context, env Env, in AlertSilenceIn) (p planned, err error) {
	expiry, err := span("expiry", in.Expiry, forget)
	if err != nil {
		return p, err
	}
	if err := known(ctx, env, in.Devices); err != nil {
		return p, err
	}
	for _, device := range in.Devices {
		p.touch("silence", device, "its alerts are silenced, for %s at most", expiry)
	}
	p.Output = AlertSilenceOut{Key: env.Key}
	return p, nil
}

func planUnsilence(_ context.Context, _ Env, in AlertUnsilenceIn) (p planned, err error) {
	p.touch("silence", in.Key, "is lifted")
	p.Output = Lifted{in.Key}
	return p, nil
}

func planReport(ctx context.Context, env Env, in ChangeReportIn) (p planned, err error) {
	if _, err := module(ctx, env, in.Module); err != nil {
		return p, err
	}
	p.touch("change record", in.Module, "%s of %s", in.Kind, strings.Join(in.Devices, ", "))
	p.Output = ChangeReportOut{Key: env.Key}
	return p, nil
}

func planVIPAdd(_ context.Context, _ Env, in VIPAddIn) (p planned, err error) {
	out := VIPOut{Servers: []RealServer{}}
	for _, v := range in.Virtuals {
		addr, err := in.Device.endpoint(v.Port)
		if err != nil {
			return p, err
		}
		p.touch("virtual address", v.Name, "+ %s", addr)
		out.Servers = append(out.Servers, RealServer{Virtual: v.Name, Addr: addr, Weight: 100, Device: in.Device.Name})
	}
	p.Output = out
	return p, nil
}

func planVIPRemove(_ context.Context, _ Env, in VIPRemoveIn) (p planned, err error) {
	for _, v := range in.Virtuals {
		addr, err := in.Device.endpoint(v.Port)
		if err != nil {
			return p, err
		}
		p.touch("virtual address", v.Name, "- %s", addr)
	}
	return p, nil
}

func planJoin(_ context.Context, _ Env, in CalleeJoinIn) (p planned, err error) {
	byService, err := newInstances(in)
	if err != nil {
		return p, err
	}
	for _, service := range in.Services {
		for _, instance := range byService[service.ID] {
			p.touch("instance", service.ID+" "+instance.Addr, "registered at share 0, then taken to 100 by a rollout")
		}
	}
	for _, device := range in.Devices {
		p.touch("device", device.Name, "%s -> %s of %s", cmdb.Held, cmdb.InService, in.Module)
	}
	return p, nil
}

func planDrain(_ context.Context, _ Env, in DrainIn) (p planned, err error) {
	byService, err := newInstances(CalleeJoinIn{Services: in.Services, Devices: in.Devices})
	if err != nil {
		return p, err
	}
	for _, service := range in.Services {
		for _, instance := range byService[service.ID] {
			p.touch("instance", service.ID+" "+instance.Addr, "share -> 0, and calls in flight are waited for")
		}
	}
	return p, nil
}

func planLeave(_ context.Context, _ Env, in CalleeLeaveIn) (p planned, err error) {
	byService, err := newInstances(CalleeJoinIn{Module: in.Module, Services: in.Services, Devices: in.Devices})
	if err != nil {
		return p, err
	}
	for _, service := range in.Services {
		for _, instance := range byService[service.ID] {
			p.touch("instance", service.ID+" "+instance.Addr, "is taken out of the name service")
		}
	}
	return p, nil
}
