package control

import (
	"context"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// permissions serves PermissionService.
type permissions struct{ *API }

// verb is what the changing methods share.
func (p permissions) verb(ctx context.Context, name string, q *pb.PermissionRequest, do func(*center.Permissions, *pb.Cause) (center.Grant, error)) (*connect.Response[pb.JSON], error) {
	c, err := p.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	grant, err := do(p.config.Centers.Permissions, c)
	if err != nil {
		return nil, err
	}
	return rpc.Document(grant, p.audit(ctx, c, "permission."+name, "grant/"+q.Caller+"/"+q.Service, grant.State))
}

func (p permissions) Request(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return p.verb(ctx, "request", q.Msg, func(s *center.Permissions, c *pb.Cause) (center.Grant, error) {
		key := c.Key
		if key == "" {
			key = "by-hand/" + c.Actor
		}
		return s.Request(ctx, q.Msg.Caller, q.Msg.Service, key, c.Actor, c.Reason)
	})
}

func (p permissions) Approve(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return p.verb(ctx, "approve", q.Msg, func(s *center.Permissions, c *pb.Cause) (center.Grant, error) {
		return s.Approve(ctx, q.Msg.Caller, q.Msg.Service, c.Actor, c.Reason)
	})
}

func (p permissions) Deny(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return p.verb(ctx, "deny", q.Msg, func(s *center.Permissions, c *pb.Cause) (center.Grant, error) {
		return s.Deny(ctx, q.Msg.Caller, q.Msg.Service, c.Actor, c.Reason)
	})
}

func (p permissions) Release(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return p.verb(ctx, "release", q.Msg, func(s *center.Permissions, c *pb.Cause) (center.Grant, error) {
		return s.Release(ctx, q.Msg.Caller, q.Msg.Service, c.Key, c.Actor, c.Reason)
	})
}

func (p permissions) Revoke(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return p.verb(ctx, "revoke", q.Msg, func(s *center.Permissions, c *pb.Cause) (center.Grant, error) {
		return s.Revoke(ctx, q.Msg.Caller, q.Msg.Service, c.Actor, c.Reason)
	})
}

func (p permissions) Check(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(p.config.Centers.Permissions.Check(ctx, q.Msg.Caller, q.Msg.Service))
}

func (p permissions) List(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.Listing], error) {
	filter := center.GrantFilter{Caller: q.Msg.Caller, Service: q.Msg.Service, State: center.GrantState(q.Msg.State)}
	return rpc.Listing(p.config.Centers.Permissions.List(ctx, filter, page(q.Msg.Page)))
}

func (p permissions) SetApproval(ctx context.Context, q *connect.Request[pb.PermissionRequest]) (*connect.Response[pb.JSON], error) {
	c, err := p.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	policy, err := p.config.Centers.Permissions.SetApproval(ctx, q.Msg.Service, center.Approval(q.Msg.Approval), c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(policy, p.audit(ctx, c, "permission.approval", "service/"+q.Msg.Service, policy.Approval))
}
