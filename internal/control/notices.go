package control

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
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
	expiry, err := rpc.Duration("expiry", q.Msg.Expiry, defaultExpiry)
	if err != nil {
		return nil, err
	}
	if q.Msg.Module == "" {
		if err := rpc.Need("cause.reason", c.Reason, "say why every module is muted, or name one"); err != nil {
			return nil, err
		}
	}
	mute, err := n.config.Centers.Notify.Mute(ctx, center.Mute{
		Key: c.Key, Kind: q.Msg.Kind, Module: q.Msg.Module, Until: time.Now().Add(expiry), Actor: c.Actor, Reason: c.Reason,
	})
	if err != nil {
		return nil, err
	}
	return rpc.Document(mute, n.audit(ctx, c, "notify.mute", "mute/"+c.Key, mute))
}

func (n notices) Unmute(ctx context.Context, q *connect.Request[pb.MuteRequest]) (*connect.Response[pb.Done], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if c.Key, err = n.mute(ctx, c.Key); err != nil {
		return nil, err
	}
	if err := n.config.Centers.Notify.Unmute(ctx, c.Key, c.Actor); err != nil {
		return nil, err
	}
	return rpc.Done(n.audit(ctx, c, "notify.unmute", "mute/"+c.Key, nil))
}

func (n notices) Mutes(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(n.config.Centers.Notify.Mutes(ctx, q.Msg.All, page(q.Msg.Page)))
}

func (n notices) Silence(ctx context.Context, q *connect.Request[pb.SilenceRequest]) (*connect.Response[pb.JSON], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	expiry, err := rpc.Duration("expiry", q.Msg.Expiry, defaultExpiry)
	if err != nil {
		return nil, err
	}
	silence, err := n.config.Centers.Notify.Silence(ctx, center.Silence{
		Key: c.Key, Devices: q.Msg.Devices, Until: time.Now().Add(expiry), Actor: c.Actor, Reason: c.Reason,
	})
	if err != nil {
		return nil, err
	}
	return rpc.Document(silence, n.audit(ctx, c, "alert.silence", "silence/"+c.Key, silence))
}

func (n notices) Unsilence(ctx context.Context, q *connect.Request[pb.SilenceRequest]) (*connect.Response[pb.Done], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if c.Key, err = n.silence(ctx, c.Key); err != nil {
		return nil, err
	}
	if err := n.config.Centers.Notify.Unsilence(ctx, c.Key, c.Actor); err != nil {
		return nil, err
	}
	return rpc.Done(n.audit(ctx, c, "alert.unsilence", "silence/"+c.Key, nil))
}

func (n notices) Silences(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(n.config.Centers.Notify.Silences(ctx, q.Msg.All, page(q.Msg.Page)))
}

func (n notices) Deliver(ctx context.Context, q *connect.Request[pb.JSON]) (*connect.Response[pb.JSON], error) {
	var notice center.Notice
	if err := json.Unmarshal(q.Msg.Json, &notice); err != nil {
		return nil, rpc.Invalid("notice", err, "give a JSON object with id, kind and text")
	}
	return rpc.Document(n.config.Centers.Notify.Deliver(ctx, notice))
}

func (n notices) Deliveries(ctx context.Context, q *connect.Request[pb.NotifyListRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(n.config.Centers.Notify.Deliveries(ctx, center.Outcome(q.Msg.Outcome), page(q.Msg.Page)))
}

func (n notices) Redeliver(ctx context.Context, q *connect.Request[pb.RedeliverRequest]) (*connect.Response[pb.JSON], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	id, err := n.notice(ctx, q.Msg.Id)
	if err != nil {
		return nil, err
	}
	delivery, err := n.config.Centers.Notify.Redeliver(ctx, id, c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(delivery, n.audit(ctx, c, "notify.redeliver", "notice/"+id, nil))
}

// Kinds of a rule of the notification center.
const (
	ruleRoute    = "route"
	ruleTemplate = "template"
	ruleSink     = "sink"
)

func unknownRule(kind string) error {
	return rpc.Invalid("kind", kind, "give route, template or sink")
}

func (n notices) Rules(ctx context.Context, q *connect.Request[pb.NotifyRuleRequest]) (*connect.Response[pb.Listing], error) {
	center, window := n.config.Centers.Notify, page(q.Msg.Page)
	switch q.Msg.Kind {
	case ruleRoute:
		return rpc.Listing(center.Routes(ctx, window))
	case ruleTemplate:
		return rpc.Listing(center.Templates(ctx, window))
	case ruleSink:
		return rpc.Listing(center.Sinks(ctx, window))
	}
	return nil, unknownRule(q.Msg.Kind)
}

func (n notices) SetRule(ctx context.Context, q *connect.Request[pb.NotifyRuleRequest]) (*connect.Response[pb.JSON], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	notify := n.config.Centers.Notify
	switch q.Msg.Kind {
	case ruleRoute:
		return setRule(ctx, n, c, q.Msg, func(r center.Route) (center.Route, error) {
			r.Actor = c.Actor
			return notify.SetRoute(ctx, r)
		})
	case ruleTemplate:
		return setRule(ctx, n, c, q.Msg, func(t center.NoticeTemplate) (center.NoticeTemplate, error) {
			t.Actor = c.Actor
			return notify.SetTemplate(ctx, t)
		})
	case ruleSink:
		return setRule(ctx, n, c, q.Msg, func(s center.SinkSpec) (center.SinkSpec, error) {
			s.Actor = c.Actor
			return notify.SetSink(ctx, s)
		})
	}
	return nil, unknownRule(q.Msg.Kind)
}

func setRule[T any](ctx context.Context, n notices, c *pb.Cause, q *pb.NotifyRuleRequest, set func(T) (T, error)) (*connect.Response[pb.JSON], error) {
	var value T
	strict := json.NewDecoder(bytes.NewReader(q.Json))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&value); err != nil {
		return nil, rpc.Invalid(q.Kind, err, "give a JSON object with the fields of a "+q.Kind)
	}
	kept, err := set(value)
	if err != nil {
		return nil, err
	}
	return rpc.Document(kept, n.audit(ctx, c, "notify.set", q.Kind, kept))
}

func (n notices) RemoveRule(ctx context.Context, q *connect.Request[pb.NotifyRuleRequest]) (*connect.Response[pb.Done], error) {
	c, err := n.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	remove := map[string]func(context.Context, string) error{
		ruleRoute: n.config.Centers.Notify.RemoveRoute, ruleTemplate: n.config.Centers.Notify.RemoveTemplate, ruleSink: n.config.Centers.Notify.RemoveSink,
	}[q.Msg.Kind]
	if remove == nil {
		return nil, unknownRule(q.Msg.Kind)
	}
	if err := remove(ctx, q.Msg.Name); err != nil {
		return nil, err
	}
	return rpc.Done(n.audit(ctx, c, "notify.remove", q.Msg.Kind+"/"+q.Msg.Name, nil))
}
