package tools

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// VIPAddIn is what vip.add takes.
type VIPAddIn struct {
	Virtuals []Virtual `json:"virtuals"`
	Device   Device    `json:"device"`
}

// VIPOut tells of real servers.
type VIPOut struct {
	Servers []RealServer `json:"servers"`
}

// RealServer is a server behind a virtual address.
type RealServer struct {
	Virtual string `json:"virtual"`
	Addr    string `json:"addr"`
	Weight  int    `json:"weight"`
	Device  string `json:"device"`
}

// endpoint is where a port of the module's manifest is on the device.
func (d Device) endpoint(port int) (string, error) {
	here := port + d.PortOffset
	if _, err := netip.ParseAddr(d.Addr); err != nil || port < 1 || here > 65535 {
		return "", fail("input.invalid", "device %q has address %q, port %d and offset %d; give an IP address, and a port up to 65535", d.Name, d.Addr, port, d.PortOffset)
	}
	return net.JoinHostPort(d.Addr, strconv.Itoa(here)), nil
}

// VIPAdd puts a device behind virtual addresses. Codes: vip.no_balancer, input.invalid.
func VIPAdd(ctx context.Context, env Env, in VIPAddIn) (VIPOut, error) {
	out := VIPOut{Servers: []RealServer{}}
	for _, v := range in.Virtuals {
		addr, err := in.Device.endpoint(v.Port)
		if err != nil {
			return out, err
		}
		server := RealServer{Virtual: v.Name, Addr: addr, Weight: 100, Device: in.Device.Name}
		if err := env.addReal(ctx, server); err != nil {
			return out, err
		}
		out.Servers = append(out.Servers, server)
	}
	return out, nil
}

func (e Env) addReal(ctx context.Context, s RealServer) error {
	_, err := e.Client.Virtual.Add(ctx, connect.NewRequest(&pb.RealServerRequest{
		Virtual: s.Virtual, Addr: s.Addr, Weight: int32(s.Weight), Device: s.Device, Cause: e.cause(),
	}))
	return err
}

// VIPRemoveIn is what vip.remove takes: the input of vip.add, to undo it, or Force.
type VIPRemoveIn struct {
	Virtuals []Virtual `json:"virtuals"`
	Device   Device    `json:"device"`
	Force    bool      `json:"force,omitempty" doc:"whoever put the device there; else only what vip.add of the same key did is taken back"`
	Done     *VIPOut   `json:"done,omitempty"`
}

// VIPRemove takes a device away from virtual addresses.
func VIPRemove(ctx context.Context, env Env, in VIPRemoveIn) (VIPOut, error) {
	out := VIPOut{Servers: []RealServer{}}
	for _, v := range in.Virtuals {
		addr, err := in.Device.endpoint(v.Port)
		if err != nil {
			return out, err
		}
		there, err := env.real(ctx, v.Name, addr)
		if err != nil {
			return out, err
		}
		cause := env.cause()
		if in.Force {
			cause.Key = ""
		}
		if _, err := env.Client.Virtual.Remove(ctx, connect.NewRequest(&pb.RealServerRequest{Virtual: v.Name, Addr: addr, Cause: cause})); err != nil {
			return out, err
		}
		if there != nil && (in.Force || there.Key == env.Key) {
			out.Servers = append(out.Servers, RealServer{v.Name, addr, there.Weight, there.Device})
		}
	}
	return out, nil
}

// real finds a real server; nil if it is not there.
func (e Env) real(ctx context.Context, virtual, addr string) (*center.RealServer, error) {
	servers, _, err := control.DecodeList[center.RealServer](e.Client.Virtual.List(ctx, connect.NewRequest(&pb.RealServerRequest{
		Virtual: virtual, Page: &pb.Page{Limit: 1000},
	})))
	for i := range servers {
		if servers[i].Addr == addr {
			return &servers[i], err
		}
	}
	return nil, err
}

// VIPRestoreIn is the input of vip.remove and what it did.
type VIPRestoreIn struct {
	Virtuals []Virtual `json:"virtuals"`
	Device   Device    `json:"device"`
	Force    bool      `json:"force,omitempty"`
	Done     *VIPOut   `json:"done,omitempty"`
}

// VIPRestore puts back what vip.remove took away; if that is not known, the device as vip.add would.
func VIPRestore(ctx context.Context, env Env, in VIPRestoreIn) (VIPOut, error) {
	if in.Done == nil {
		return VIPAdd(ctx, env, VIPAddIn{in.Virtuals, in.Device})
	}
	for _, server := range in.Done.Servers {
		if err := env.addReal(ctx, server); err != nil {
			return VIPOut{Servers: []RealServer{}}, err
		}
	}
	return *in.Done, nil
}
