package tools

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// FlowParamsIn is what flow.params takes.
type FlowParamsIn struct {
	Module  string   `json:"module"`
	Count   int      `json:"count,omitempty" doc:"devices to add; default 1, or as many as are named"`
	Devices []string `json:"devices,omitempty" doc:"these devices and no others"`
}

// FlowParamsOut is what flow.params tells.
type FlowParamsOut struct {
	Module   string   `json:"module"`
	Business string   `json:"business"`
	Count    int      `json:"count"`
	Devices  []string `json:"devices" doc:"that were named; none: the pool decides"`
	City     string   `json:"city" doc:"preferred"`
	Sites    []string `json:"sites" doc:"preferred, best first"`
	Types    []string `json:"types" doc:"allowed, best first; none: any"`
}

// FlowParams reads what a flow needs to know of a module. Codes: module.unknown, count.invalid, module.full.
func FlowParams(ctx context.Context, env Env, in FlowParamsIn) (FlowParamsOut, error) {
	out := FlowParamsOut{Module: in.Module, Count: in.Count, Devices: append([]string{}, in.Devices...)}
	if in.Count < 0 || len(in.Devices) > 0 && in.Count > len(in.Devices) {
		return out, fail("count.invalid", "count is %d with %d devices named; give at least 1, and no more than are named", in.Count, len(in.Devices))
	}
	out.Count = cmp.Or(in.Count, len(in.Devices), 1)
	m, err := module(ctx, env, in.Module)
	if err != nil {
		return out, err
	}
	if m.Scale.Max > 0 {
		have, err := devicesWhere(ctx, env, fmt.Sprintf("state == %q && module == %q", cmdb.InService, in.Module))
		if err != nil {
			return out, err
		}
		if len(have)+out.Count > m.Scale.Max {
			return out, fail("module.full", "%s has %d devices in service and may have %d; %d more are over that: raise scale.max",
				in.Module, len(have), m.Scale.Max, out.Count)
		}
	}
	out.Business, out.City = m.Business, m.Scale.City
	out.Sites, out.Types = append([]string{}, m.Scale.Sites...), append([]string{}, m.Scale.Types...)
	return out, nil
}

// DeviceQueryIn is what device.query takes.
type DeviceQueryIn struct {
	Module  string   `json:"module"`
	Count   int      `json:"count" doc:"how many are needed"`
	Devices []string `json:"devices,omitempty" doc:"these and no others"`
	City    string   `json:"city,omitempty" doc:"only there"`
	Site    string   `json:"site,omitempty" doc:"only there"`
	Types   []string `json:"types,omitempty" doc:"only these, best first; default the manifest's"`
}

// DeviceQueryOut is what device.query tells.
type DeviceQueryOut struct {
	Devices []Device `json:"devices" doc:"idle ones that suit, best first"`
	Names   []string `json:"names"`
}

// DeviceQuery finds idle devices for a module, more than are needed where there are more, best first: same city, then
// site, then device type. Codes: module.unknown, device.none.
func DeviceQuery(ctx context.Context, env Env, in DeviceQueryIn) (DeviceQueryOut, error) {
	out := DeviceQueryOut{Devices: []Device{}, Names: []string{}}
	if in.Count < 1 {
		return out, fail("count.invalid", "count is %d; give at least 1", in.Count)
	}
	if _, err := module(ctx, env, in.Module); err != nil {
		return out, err
	}
	found, err := queried(ctx, env, in)
	if err != nil {
		return out, err
	}
	if len(found) < in.Count {
		return out, later("device.none", "%d idle devices suit %s, %d are needed; add devices, or widen city, sites and types", len(found), in.Module, in.Count)
	}
	if out.Devices, err = told(ctx, env, found); err != nil {
		return out, err
	}
	out.Names = names(out.Devices)
	return out, nil
}

// queried finds the devices that are named, or those that suit.
func queried(ctx context.Context, env Env, in DeviceQueryIn) ([]cmdb.Device, error) {
	if len(in.Devices) == 0 {
		// A few more than are needed: others may take some of them before this flow does.
		found, _, err := control.DecodeList[cmdb.Device](env.Client.Devices.Query(ctx, connect.NewRequest(&pb.QueryDevicesRequest{
			Module: in.Module, Limit: int32(min(2*in.Count+8, 1000)), City: in.City, Site: in.Site, Types: in.Types,
		})))
		return found, err
	}
	var found []cmdb.Device
	for _, name := range in.Devices {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if isCode(err, "resource.not_found") {
			return nil, fail("device.unknown", "no device %q; zhiyun get devices lists those there are", name)
		}
		if err != nil {
			return nil, err
		}
		if d.State != cmdb.Idle {
			return nil, later("device.none", "device %s is %s, not idle; name another", name, d.State)
		}
		found = append(found, d)
	}
	return found, nil
}

// NameLookupIn is what name.lookup takes.
type NameLookupIn struct {
	Module string `json:"module"`
}

// NameLookupOut is what name.lookup tells.
type NameLookupOut struct {
	Services []Service `json:"services"`
	Virtuals []Virtual `json:"virtuals" doc:"virtual addresses"`
}

// NameLookup tells under which names a module is called. Codes: module.unknown.
func NameLookup(ctx context.Context, env Env, in NameLookupIn) (NameLookupOut, error) {
	m, err := module(ctx, env, in.Module)
	if err != nil {
		return NameLookupOut{Services: []Service{}, Virtuals: []Virtual{}}, err
	}
	return NameLookupOut{Services: services(m), Virtuals: virtuals(m)}, nil
}

// DevicePickIn is what device.pick takes.
type DevicePickIn struct {
	Module  string   `json:"module"`
	Count   int      `json:"count,omitempty" doc:"how many leave; default 1, or as many as are named"`
	Devices []string `json:"devices,omitempty" doc:"these and no others"`
}

// DevicePickOut is what device.pick tells.
type DevicePickOut struct {
	Devices []Device `json:"devices"`
	Names   []string `json:"names"`
}

// DevicePick chooses which devices of a module leave: those named, or those longest not needed, the youngest in service
// first. Never below the module's minimum. Codes: module.unknown, device.none, module.minimum, device.state.
func DevicePick(ctx context.Context, env Env, in DevicePickIn) (DevicePickOut, error) {
	out := DevicePickOut{Devices: []Device{}, Names: []string{}}
	count := cmp.Or(in.Count, len(in.Devices), 1)
	if count < 1 || len(in.Devices) > 0 && count != len(in.Devices) {
		return out, fail("count.invalid", "count is %d with %d devices named; give at least 1, and as many as are named", in.Count, len(in.Devices))
	}
	m, err := module(ctx, env, in.Module)
	if err != nil {
		return out, err
	}
	serving, err := devicesWhere(ctx, env, fmt.Sprintf("state == %q && module == %q", cmdb.InService, in.Module))
	if err != nil {
		return out, err
	}
	if len(serving) < count {
		return out, fail("module.minimum", "%s has %d devices in service; %d cannot leave: ask for fewer, or wait for an expansion that is still under way",
			in.Module, len(serving), count)
	}
	if len(serving)-count < m.Scale.Min {
		return out, fail("module.minimum", "%s has %d devices in service and keeps at least %d; %d cannot leave: lower scale.min",
			in.Module, len(serving), m.Scale.Min, count)
	}
	leaving, err := leavers(serving, in.Devices, count, in.Module)
	if err != nil {
		return out, err
	}
	if out.Devices, err = told(ctx, env, leaving); err != nil {
		return out, err
	}
	out.Names = names(out.Devices)
	return out, nil
}

func leavers(serving []cmdb.Device, named []string, count int, module string) ([]cmdb.Device, error) {
	if len(named) == 0 {
		slices.SortFunc(serving, func(a, b cmdb.Device) int {
			return cmp.Or(b.Since.Compare(a.Since), strings.Compare(a.Name, b.Name))
		})
		return serving[:count], nil
	}
	var out []cmdb.Device
	for _, name := range named {
		i := slices.IndexFunc(serving, func(d cmdb.Device) bool { return d.Name == name })
		if i < 0 {
			return nil, fail("device.state", "device %s is not in service of %s; zhiyun get devices shows where it is", name, module)
		}
		out = append(out, serving[i])
	}
	return out, nil
}
