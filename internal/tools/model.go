package tools

import (
	"context"
	"math"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// Device is a device as the flows hand it on.
type Device struct {
	Name  string `json:"name"`
	Addr  string `json:"addr" doc:"IP address"`
	Site  string `json:"site"`
	Type  string `json:"type"`
	Cores int    `json:"cores"`

	PortOffset int `json:"port_offset,omitempty" doc:"added to each port of the module, where devices share an address"`
}

// Service is a service id under which the module's devices are registered.
type Service struct {
	ID     string `json:"id"`
	Port   int    `json:"port"`
	Weight int    `json:"weight" doc:"of a whole device"`

	Weights map[string]int `json:"weights,omitempty" doc:"by device type, where types carry different loads"`
}

// weight is the full weight of an instance on a device of a type.
func (s Service) weight(deviceType string) int {
	if weight := s.Weights[deviceType]; weight > 0 {
		return weight
	}
	return s.Weight
}

// Virtual is a virtual address in front of the module's devices.
type Virtual struct {
	Name string `json:"name"`
	Addr string `json:"addr" doc:"that clients dial"`
	Port int    `json:"port" doc:"on each device"`
}

func resource[T any](ctx context.Context, env Env, kind cmdb.Kind, name string) (T, error) {
	return control.Decode[T](env.Client.Resources.Get(ctx, connect.NewRequest(&pb.GetResourceRequest{Kind: string(kind), Name: name})))
}

// module reads a module; one that is not there has a name of its own.
func module(ctx context.Context, env Env, name string) (cmdb.Module, error) {
	m, err := resource[cmdb.Module](ctx, env, cmdb.KindModule, name)
	if isCode(err, "resource.not_found") {
		return m, fail("module.unknown", "no module %q; zhiyun get modules lists those there are", name)
	}
	return m, err
}

// devicesWhere lists the devices that a CEL filter picks, all pages.
func devicesWhere(ctx context.Context, env Env, filter string) ([]cmdb.Device, error) {
	var out []cmdb.Device
	for after := ""; ; {
		page, next, err := control.DecodeList[cmdb.Device](env.Client.Resources.List(ctx, connect.NewRequest(&pb.ListResourcesRequest{
			Kind: string(cmdb.KindDevice), Filter: filter, Page: &pb.Page{Limit: 1000, After: after},
		})))
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		if after = next; next == "" {
			return out, nil
		}
	}
}

// told turns devices of the CMDB into those of the flows.
func told(ctx context.Context, env Env, devices []cmdb.Device) ([]Device, error) {
	cores := make(map[string]int)
	out := make([]Device, len(devices))
	for i, d := range devices {
		if _, known := cores[d.Type]; !known {
			t, err := resource[cmdb.DeviceType](ctx, env, cmdb.KindDeviceType, d.Type)
			if err != nil {
				return nil, err
			}
			cores[d.Type] = t.Cores
		}
		out[i] = Device{Name: d.Name, Addr: d.Addr, Site: d.Site, Type: d.Type, Cores: cores[d.Type], PortOffset: d.PortOffset}
	}
	return out, nil
}

func names(devices []Device) []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = d.Name
	}
	return out
}

// services are the names of a module, with weights by what a device of each type carries: the smallest has the declared
// weight, one that carries twice as much has twice the weight.
func services(m cmdb.Module) []Service {
	least := math.Inf(1)
	for _, capacity := range m.Scale.Capacity {
		least = min(least, capacity)
	}
	out := make([]Service, 0, len(m.Services))
	for _, s := range m.Services {
		service := Service{ID: s.ID, Port: s.Port, Weight: s.Weight}
		if len(m.Scale.Capacity) > 1 {
			service.Weights = make(map[string]int)
			for deviceType, capacity := range m.Scale.Capacity {
				service.Weights[deviceType] = min(l5.MaxWeight, max(1, int(math.Round(float64(s.Weight)*capacity/least))))
			}
		}
		out = append(out, service)
	}
	return out
}

func virtuals(m cmdb.Module) []Virtual {
	out := make([]Virtual, 0, len(m.VirtualAddrs))
	for _, v := range m.VirtualAddrs {
		out = append(out, Virtual{Name: v.Name, Addr: v.Addr, Port: v.Port})
	}
	return out
}
