package control

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// changes serves ChangeService, virtuals VirtualAddrService.
type (
	changes  struct{ *API }
	virtuals struct{ *API }
)

func (s changes) Record(ctx context.Context, q *connect.Request[pb.RecordChangeRequest]) (*connect.Response[pb.JSON], error) {
	c, err := s.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	return rpc.Document(s.config.Centers.Changes.Record(ctx, center.Change{
		Key: c.Key, Module: q.Msg.Module, Kind: q.Msg.Kind, Devices: q.Msg.Devices, Execution: c.Execution,
		Actor: c.Actor, Reason: c.Reason, Detail: json.RawMessage(q.Msg.Detail),
	}))
}

func (s changes) Undo(ctx context.Context, q *connect.Request[pb.RecordChangeRequest]) (*connect.Response[pb.Done], error) {
	c, err := s.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	return rpc.Done(s.config.Centers.Changes.Undo(ctx, c.Key, c.Actor, c.Reason))
}

func (s changes) List(ctx context.Context, q *connect.Request[pb.ListChangesRequest]) (*connect.Response[pb.Listing], error) {
	since, err := rpc.Moment("since", q.Msg.Since)
	if err != nil {
		return nil, err
	}
	filter := center.ChangeFilter{Module: q.Msg.Module, Execution: q.Msg.Execution, Since: since}
	return rpc.Listing(s.config.Centers.Changes.List(ctx, filter, page(q.Msg.Page)))
}

func (v virtuals) Add(ctx context.Context, q *connect.Request[pb.RealServerRequest]) (*connect.Response[pb.JSON], error) {
	c, err := v.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	server, err := v.config.Centers.VirtualAddrs.Add(ctx, center.RealServer{
		Virtual: q.Msg.Virtual, Addr: q.Msg.Addr, Weight: int(q.Msg.Weight), Device: q.Msg.Device, Key: c.Key, Actor: c.Actor,
	})
	if err != nil {
		return nil, err
	}
	return rpc.Document(server, v.audit(ctx, c, "vip.add", "vip/"+q.Msg.Virtual+"/"+q.Msg.Addr, nil))
}

func (v virtuals) Remove(ctx context.Context, q *connect.Request[pb.RealServerRequest]) (*connect.Response[pb.Done], error) {
	c, err := v.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := v.config.Centers.VirtualAddrs.Remove(ctx, q.Msg.Virtual, q.Msg.Addr, c.Key, c.Actor); err != nil {
		return nil, err
	}
	return rpc.Done(v.audit(ctx, c, "vip.remove", "vip/"+q.Msg.Virtual+"/"+q.Msg.Addr, nil))
}

func (v virtuals) List(ctx context.Context, q *connect.Request[pb.RealServerRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(v.config.Centers.VirtualAddrs.List(ctx, q.Msg.Virtual, page(q.Msg.Page)))
}
