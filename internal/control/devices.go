package control

import (
	"context"
	"errors"
	"fmt"
	"math"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// devices serves DeviceService.
type devices struct{ *API }

func (d devices) Query(_ context.Context, q *connect.Request[pb.QueryDevicesRequest]) (*connect.Response[pb.Listing], error) {
	module, err := d.config.CMDB.Module(q.Msg.Module)
	if err != nil {
		return nil, err
	}
	n, err := rpc.Limit(&pb.Page{Limit: q.Msg.Limit})
	if err != nil {
		return nil, err
	}
	cities := make(map[string]string)
	for _, site := range d.config.CMDB.Sites() {
		cities[site.Name] = site.City
	}
	prefs := scale.Prefs{Sites: module.Scale.Sites, Types: module.Scale.Types}
	if module.Scale.City != "" {
		prefs.Cities = []string{module.Scale.City}
	}
	if len(q.Msg.Types) > 0 {
		prefs.Types = q.Msg.Types
	}
	capacity := module.Scale.Capacity
	var candidates []scale.Candidate
	for _, device := range d.config.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Idle, Site: q.Msg.Site, City: q.Msg.City}) {
		candidates = append(candidates, scale.Candidate{Name: device.Name, Site: device.Site, City: cities[device.Site], Type: device.Type})
	}
	if len(capacity) == 0 {
		// A module that is not scaled by load names no capacities: every type counts alike.
		capacity = make(map[string]float64)
		for _, c := range candidates {
			capacity[c.Type] = 1
		}
	}
	picked := scale.Place(math.Inf(1), candidates, capacity, prefs, n).Picked
	out := make([]cmdb.Device, 0, len(picked))
	for _, c := range picked {
		device, err := d.config.CMDB.Device(c.Name)
		if err == nil && device.State == cmdb.Idle { // it may have gone since
			out = append(out, device)
		}
	}
	return rpc.Listing(out, "", nil)
}

func (d devices) Acquire(ctx context.Context, q *connect.Request[pb.AcquireRequest]) (*connect.Response[pb.Listing], error) {
	c, err := d.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	ttl, err := rpc.Duration("ttl", q.Msg.Ttl, 0)
	if err != nil {
		return nil, err
	}
	got, err := d.config.CMDB.Acquire(ctx, cmdb.AcquireRequest{
		Owner: q.Msg.Owner, Key: c.Key, Count: int(q.Msg.Count), Names: q.Msg.Names, Module: q.Msg.Module,
		City: q.Msg.City, Site: q.Msg.Site, Types: q.Msg.Types, TTL: ttl, Actor: c.Actor,
	}, because(c)...)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(got))
	for i := range got {
		names[i] = got[i].Name
	}
	if err := d.audit(ctx, c, "device.acquire", "module/"+q.Msg.Module, names); err != nil {
		return nil, err
	}
	return rpc.Listing(got, "", nil)
}

// verb is what most verbs of a device share: who asks, which devices, for how long, and the audit record.
func (d devices) verb(ctx context.Context, name string, q *pb.DevicesRequest, do func(c *pb.Cause) error) error {
	c, err := d.cause(ctx, q.Cause)
	if err != nil {
		return err
	}
	if len(q.Names) == 0 || len(q.Names) > rpc.MaxPage {
		return rpc.Invalid("names", fmt.Sprintf("%d names", len(q.Names)), fmt.Sprintf("name 1 to %d devices", rpc.MaxPage))
	}
	if err := do(c); err != nil {
		return err
	}
	for _, device := range q.Names {
		if err := d.audit(ctx, c, "device."+name, "device/"+device, nil); err != nil {
			return err
		}
	}
	return nil
}

func (d devices) Renew(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Done], error) {
	ttl, err := rpc.Duration("ttl", q.Msg.Ttl, 0)
	if err != nil {
		return nil, err
	}
	return rpc.Done(d.verb(ctx, "renew", q.Msg, func(c *pb.Cause) error {
		return d.config.CMDB.Renew(ctx, q.Msg.Owner, q.Msg.Names, ttl, because(c)...)
	}))
}

func (d devices) Release(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.DeviceNames], error) {
	out := &pb.DeviceNames{}
	err := d.verb(ctx, "release", q.Msg, func(c *pb.Cause) (err error) {
		out.Names, err = d.config.CMDB.Release(ctx, q.Msg.Owner, q.Msg.Names, because(c)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// each does a verb to one device after the other. A rehearsal goes on where a commit would have.
func each(names []string, do func(name string) error) error {
	var rehearsed error
	for _, name := range names {
		err := do(name)
		if errors.Is(err, store.ErrRehearsed) {
			rehearsed = err
		} else if err != nil {
			return err
		}
	}
	return rehearsed
}

func (d devices) Serve(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Done], error) {
	return rpc.Done(d.verb(ctx, "serve", q.Msg, func(c *pb.Cause) error {
		return each(q.Msg.Names, func(name string) error {
			// Repeated after an answer was lost, it finds its work done.
			if device, err := d.config.CMDB.Device(name); err == nil && device.State == cmdb.InService && device.Module == q.Msg.Module {
				return nil
			}
			return d.config.CMDB.Serve(ctx, q.Msg.Owner, name, q.Msg.Module, because(c)...)
		})
	}))
}

func (d devices) Hold(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Listing], error) {
	ttl, err := rpc.Duration("ttl", q.Msg.Ttl, 0)
	if err != nil {
		return nil, err
	}
	var held []cmdb.Device
	err = d.verb(ctx, "hold", q.Msg, func(c *pb.Cause) (err error) {
		held, err = d.config.CMDB.Hold(ctx, q.Msg.Owner, q.Msg.Names, ttl, because(c)...)
		return err
	})
	return rpc.Listing(held, "", err)
}

func (d devices) MarkFaulty(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Done], error) {
	return rpc.Done(d.verb(ctx, "mark_faulty", q.Msg, func(c *pb.Cause) error {
		if err := rpc.Need("cause.reason", c.Reason, "say what is wrong with the device"); err != nil {
			return err
		}
		return each(q.Msg.Names, func(name string) error { return d.config.CMDB.MarkFaulty(ctx, name, c.Reason, because(c)...) })
	}))
}

func (d devices) Repair(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Done], error) {
	return rpc.Done(d.verb(ctx, "repair", q.Msg, func(c *pb.Cause) error {
		return each(q.Msg.Names, func(name string) error { return d.config.CMDB.Repair(ctx, name, because(c)...) })
	}))
}

func (d devices) Retire(ctx context.Context, q *connect.Request[pb.DevicesRequest]) (*connect.Response[pb.Done], error) {
	return rpc.Done(d.verb(ctx, "retire", q.Msg, func(c *pb.Cause) error {
		return each(q.Msg.Names, func(name string) error {
			if err := d.config.CMDB.Retire(ctx, name, because(c)...); err != nil || d.config.Drift == nil {
				return err
			}
			return d.config.Drift.Forget(ctx, name) // nobody will report on it any more
		})
	}))
}

func (d devices) Counts(context.Context, *connect.Request[pb.CountsRequest]) (*connect.Response[pb.CountsResponse], error) {
	out := &pb.CountsResponse{States: make(map[string]int64)}
	for state, n := range d.config.CMDB.Counts() {
		out.States[string(state)] = int64(n)
	}
	return connect.NewResponse(out), nil
}
