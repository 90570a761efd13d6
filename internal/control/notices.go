package control

import (
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// notices serves NotifyService.
type notices struct{ *API }

// defaultExpiry ends mutes and silences that name none.
const defaultExpiry = 2 * time.Hour

func (n notices) Mute(ctx context.Context, q *connect.Request[pb.MuteRequest]) (*connect.Response[pb.JSON], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	expiry, err := duration("expiry", q.Msg.Expiry, defaultExpiry)
	if err != nil {
		return nil, err
	}
	mute, err := n.config.Centers.Notify.Mute(ctx, center.Mute{
		Key: c.Key, Kind: q.Msg.Kind, Module: q.Msg.Module, Until: time.Now().Add(expiry), Actor: c.Actor, Reason: c.Reason,
	})
	if err != nil {
		return nil, err
	}
	return document(mute, n.audit(ctx, c, "notify.mute", "mute/"+c.Key, mute))
}

func (n notices) Unmute(ctx context.Context, q *connect.Request[pb.MuteRequest]) (*connect.Response[pb.Done], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := n.config.Centers.Notify.Unmute(ctx, c.Key, c.Actor); err != nil {
		return nil, err
	}
	return done(n.audit(ctx, c, "notify.unmute", "mute/"+c.Key, nil))
}

func (n notices) Mutes(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return listing(n.config.Centers.Notify.Mutes(ctx, q.Msg.All, page(q.Msg.Page)))
}

func (n notices) Silence(ctx context.Context, q *connect.Request[pb.SilenceRequest]) (*connect.Response[pb.JSON], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	expiry, err := duration("expiry", q.Msg.Expiry, defaultExpiry)
	if err != nil {
		return nil, err
	}
	silence, err := n.config.Centers.Notify.Silence(ctx, center.Silence{
		Key: c.Key, Devices: q.Msg.Devices, Until: time.Now().Add(expiry), Actor: c.Actor, Reason: c.Reason,
	})
	if err != nil {
		return nil, err
	}
	return document(silence, n.audit(ctx, c, "alert.silence", "silence/"+c.Key, silence))
}

func (n notices) Unsilence(ctx context.Context, q *connect.Request[pb.SilenceRequest]) (*connect.Response[pb.Done], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := n.config.Centers.Notify.Unsilence(ctx, c.Key, c.Actor); err != nil {
		return nil, err
	}
	return done(n.audit(ctx, c, "alert.unsilence", "silence/"+c.Key, nil))
}

func (n notices) Silences(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return listing(n.config.Centers.Notify.Silences(ctx, q.Msg.All, page(q.Msg.Page)))
}

func (n notices) Deliver(ctx context.Context, q *connect.Request[pb.JSON]) (*connect.Response[pb.JSON], error) {
	var notice center.Notice
	if err := json.Unmarshal(q.Msg.Json, &notice); err != nil {
		return nil, invalid("notice", err, "give a JSON object with id, kind and text")
	}
	return document(n.config.Centers.Notify.Deliver(ctx, notice))
}

func (n notices) Deliveries(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return listing(n.config.Centers.Notify.Deliveries(ctx, center.Outcome(q.Msg.Outcome), page(q.Msg.Page)))
}
