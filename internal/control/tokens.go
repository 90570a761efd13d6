package control

import (
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// tokens serves TokenService.
type tokens struct{ *API }

// How long tokens are good for that are made without a time: one that is to be typed somewhere soon, and one that is kept.
const (
	defaultEnrolTTL = time.Hour
	defaultTokenTTL = 30 * 24 * time.Hour
)

func (t tokens) Issue(ctx context.Context, q *connect.Request[pb.IssueTokenRequest]) (*connect.Response[pb.IssueTokenResponse], error) {
	c, err := t.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	role, fallback := auth.Role(q.Msg.Role), defaultTokenTTL
	switch role {
	case auth.Enrol:
		fallback = defaultEnrolTTL
	case auth.Operator, auth.Viewer, auth.Agent, auth.Metrics:
	default:
		return nil, rpc.Invalid("role", role, "give operator, viewer, agent, metrics or enrol")
	}
	ttl, err := rpc.Duration("ttl", q.Msg.Ttl, fallback)
	if err != nil {
		return nil, err
	}
	token, made, err := t.config.Centers.Credentials.Issue(ctx, center.IssueIn{Role: role, Name: q.Msg.Name, TTL: ttl, By: c.Actor, Reason: c.Reason})
	if err != nil {
		return nil, err
	}
	if role == auth.Enrol && t.config.Trust != nil {
		token.Pin = t.config.Trust.Pin()
	}
	encoded, err := json.Marshal(made.Public())
	if err == nil {
		err = t.audit(ctx, c, "token.issue", "credential/"+made.ID, map[string]any{"role": made.Role, "name": made.Name, "expires": made.Expires})
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.IssueTokenResponse{Token: token.String(), Credential: encoded}), nil
}

func (t tokens) List(ctx context.Context, q *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(t.config.Centers.Credentials.List(ctx, center.CredentialFilter{Role: auth.Role(q.Msg.Role), Name: q.Msg.Name, All: q.Msg.All}, page(q.Msg.Page)))
}

func (t tokens) Revoke(ctx context.Context, q *connect.Request[pb.RevokeTokenRequest]) (*connect.Response[pb.Listing], error) {
	c, err := t.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	var ended []center.Credential
	if q.Msg.Id != "" {
		id, err := t.credential(ctx, q.Msg.Id)
		if err != nil {
			return nil, err
		}
		one, err := t.config.Centers.Credentials.Revoke(ctx, id, c.Actor, c.Reason)
		if err != nil {
			return nil, err
		}
		ended = append(ended, one)
	} else {
		ended, err = t.config.Centers.Credentials.RevokeAll(ctx, auth.Role(q.Msg.Role), q.Msg.Name, c.Actor, c.Reason)
	}
	for _, one := range ended { // also of a call that failed half-way
		if fault := t.audit(ctx, c, "token.revoke", "credential/"+one.ID, map[string]any{"role": one.Role, "name": one.Name}); fault != nil {
			return nil, fault
		}
	}
	return rpc.Listing(ended, "", err)
}
