package control

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// freezes serves FreezeService.
type freezes struct{ *API }

func frozenObject(module string) string {
	if module == "" {
		return "flows"
	}
	return "module/" + module
}

func (f freezes) Freeze(ctx context.Context, q *connect.Request[pb.FreezeRequest]) (*connect.Response[pb.JSON], error) {
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if q.Msg.Module != "" {
		if _, err := f.config.CMDB.Module(q.Msg.Module); err != nil {
			return nil, err
		}
	}
	until, err := rpc.Moment("until", q.Msg.Until)
	if err != nil {
		return nil, err
	}
	frozen, err := f.config.Centers.Freezes.Press(ctx, q.Msg.Module, until, c.Actor, c.Reason)
	if err != nil {
		return nil, err
	}
	detail := "until it is lifted"
	if !frozen.Until.IsZero() {
		detail = "until " + frozen.Until.Format(time.RFC3339)
	}
	return rpc.Document(frozen, f.audit(ctx, c, "freeze", frozenObject(q.Msg.Module), detail))
}

func (f freezes) Unfreeze(ctx context.Context, q *connect.Request[pb.FreezeRequest]) (*connect.Response[pb.ResumeResponse], error) {
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	was, err := f.config.Centers.Freezes.Lift(ctx, q.Msg.Module, c.Actor)
	if err != nil {
		return nil, err
	}
	if err := f.audit(ctx, c, "unfreeze", frozenObject(q.Msg.Module), nil); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResumeResponse{WasPaused: was}), nil
}

func (f freezes) List(ctx context.Context, _ *connect.Request[pb.FreezeRequest]) (*connect.Response[pb.Listing], error) {
	all, err := f.config.Centers.Freezes.List(ctx)
	return rpc.Listing(all, "", err)
}
