package control

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// triggers serves TriggerService. A record of a trigger holds its secret, so that rehearsals tell what is shown, and not what a commit would write.
type triggers struct{ *API }

func (t triggers) engine() (*flow.Engine, error) {
	if t.config.Flow == nil {
		return nil, fmt.Errorf("%w: flow", ErrAbsent)
	}
	return t.config.Flow, nil
}

func (t triggers) controller() (*trigger.Controller, error) {
	if t.config.Triggers == nil {
		return nil, fmt.Errorf("%w: triggers", ErrAbsent)
	}
	return t.config.Triggers, nil
}

func (t triggers) Apply(ctx context.Context, q *connect.Request[pb.ApplyTriggerRequest]) (*connect.Response[pb.JSON], error) {
	controller, err := t.controller()
	if err != nil {
		return nil, err
	}
	c, err := t.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	parsed, err := trigger.Parse(q.Msg.Document)
	if err != nil {
		return nil, err
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		status, err := controller.Rehearse(ctx, parsed)
		if err == nil {
			err = rpc.Noted(rehearsal, "trigger/"+parsed.Name, status)
		}
		return nil, rpc.RehearsedOr(err)
	}
	status, err := controller.Apply(ctx, parsed)
	if err != nil {
		return nil, err
	}
	return rpc.Document(status, t.audit(ctx, c, "trigger.apply", "trigger/"+parsed.Name, status.Trigger))
}

func (t triggers) List(ctx context.Context, _ *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.Listing], error) {
	controller, err := t.controller()
	if err != nil {
		return nil, err
	}
	all, err := controller.List(ctx)
	return rpc.Listing(all, "", err)
}

func (t triggers) Get(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.JSON], error) {
	controller, err := t.controller()
	if err != nil {
		return nil, err
	}
	return rpc.Document(controller.Get(ctx, q.Msg.Name))
}

func (t triggers) History(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.Listing], error) {
	controller, err := t.controller()
	if err != nil {
		return nil, err
	}
	all, err := controller.History(ctx, q.Msg.Name)
	return rpc.Listing(all, "", err)
}

// order does something to a trigger that is there; would says what a rehearsal tells of it.
func (t triggers) order(ctx context.Context, q *pb.TriggerRequest, action string, would, do func(*trigger.Controller, *pb.Cause) (any, error)) (any, error) {
	controller, err := t.controller()
	if err != nil {
		return nil, err
	}
	c, err := t.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		what, err := would(controller, c)
		if err == nil {
			err = rpc.Noted(rehearsal, "trigger/"+q.Name, what)
		}
		return nil, rpc.RehearsedOr(err)
	}
	out, err := do(controller, c)
	if err != nil {
		return nil, err
	}
	return out, t.audit(ctx, c, "trigger."+action, "trigger/"+q.Name, nil)
}

// becomes is what a rehearsal tells of an order.
func becomes(ctx context.Context, name, what string) func(*trigger.Controller, *pb.Cause) (any, error) {
	return func(t *trigger.Controller, c *pb.Cause) (any, error) {
		status, err := t.Get(ctx, name)
		return map[string]any{"trigger": name, "becomes": what, "was_paused": status.State.Paused != nil}, err
	}
}

func (t triggers) Pause(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(t.order(ctx, q.Msg, "pause", becomes(ctx, q.Msg.Name, "paused"), func(controller *trigger.Controller, c *pb.Cause) (any, error) {
		if err := rpc.Need("cause.reason", c.Reason, "say why: whoever finds it paused must know what to wait for"); err != nil {
			return nil, err
		}
		return controller.Pause(ctx, q.Msg.Name, c.Actor, c.Reason)
	}))
}

func (t triggers) Resume(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(t.order(ctx, q.Msg, "resume", becomes(ctx, q.Msg.Name, "active"), func(controller *trigger.Controller, _ *pb.Cause) (any, error) {
		return controller.Resume(ctx, q.Msg.Name)
	}))
}

func (t triggers) Delete(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.Done], error) {
	_, err := t.order(ctx, q.Msg, "delete", becomes(ctx, q.Msg.Name, "gone"), func(controller *trigger.Controller, _ *pb.Cause) (any, error) {
		return nil, controller.Delete(ctx, q.Msg.Name)
	})
	return rpc.Done(err)
}

func (t triggers) Fire(ctx context.Context, q *connect.Request[pb.TriggerRequest]) (*connect.Response[pb.StartFlowResponse], error) {
	out, err := t.order(ctx, q.Msg, "fire",
		func(controller *trigger.Controller, c *pb.Cause) (any, error) {
			status, err := controller.Get(ctx, q.Msg.Name)
			if err != nil {
				return nil, err
			}
			engine, err := t.engine()
			if err != nil {
				return nil, err
			}
			d, err := engine.Definition(ctx, status.Flow, 0)
			return map[string]any{"starts": status.Flow, "version": d.Version, "params": status.Params}, err
		},
		func(controller *trigger.Controller, c *pb.Cause) (any, error) {
			return controller.Fire(ctx, q.Msg.Name, trigger.Order{Actor: c.Actor, Reason: c.Reason, As: rpc.Proved(ctx, c), Body: q.Msg.Body})
		})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StartFlowResponse{Id: out.(string)}), nil
}
