package control

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

func (r registry) Rules(ctx context.Context, q *connect.Request[pb.ServiceRequest]) (*connect.Response[pb.RulesResponse], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	text, revision := server.Rules(q.Msg.Service)
	return connect.NewResponse(&pb.RulesResponse{Rules: text, Revision: revision}), nil
}

func (r registry) SetRules(ctx context.Context, q *connect.Request[pb.SetRulesRequest]) (*connect.Response[pb.RulesResponse], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	at := int64(l5server.AnyRevision)
	if q.Msg.Revision != nil {
		at = q.Msg.GetRevision()
	}
	if _, err := server.SetRules(ctx, q.Msg.Service, q.Msg.Rules, at); err != nil {
		return nil, err
	}
	text, revision := server.Rules(q.Msg.Service)
	if err := r.audit(ctx, c, "l5.rules", "service/"+q.Msg.Service, json.RawMessage(text)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RulesResponse{Rules: text, Revision: revision}), nil
}

func (r registry) Isolate(ctx context.Context, q *connect.Request[pb.IsolateRequest]) (*connect.Response[pb.Done], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := server.Isolate(ctx, q.Msg.Service, q.Msg.Addr, q.Msg.Reason); err != nil {
		return nil, err
	}
	return rpc.Done(r.audit(ctx, c, "l5.isolate", "instance/"+q.Msg.Service+"/"+q.Msg.Addr, map[string]string{"reason": q.Msg.Reason}))
}
