package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/gray"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// rollouts serves GrayService.
type rollouts struct{ *API }

func (r rollouts) controller() (*gray.Controller, error) {
	if r.config.Gray == nil {
		return nil, fmt.Errorf("%w: gray", ErrAbsent)
	}
	return r.config.Gray, nil
}

func (r rollouts) Start(ctx context.Context, q *connect.Request[pb.StartRolloutRequest]) (*connect.Response[pb.JSON], error) {
	controller, err := r.controller()
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	var rollout gray.Rollout
	if err := json.Unmarshal(q.Msg.Rollout, &rollout); err != nil {
		return nil, rpc.Invalid("rollout", err, "give a JSON object with service, module and new")
	}
	rollout.ID, rollout.Actor, rollout.Because = cmp.Or(rollout.ID, c.Key), c.Actor, c.Reason
	if rollout.ID != "" {
		// The policy of the module may have changed since: the rollout that runs keeps its own.
		if have, err := controller.Get(ctx, rollout.ID); err == nil && have.Service == rollout.Service {
			return rpc.Document(have, nil)
		}
	}
	if rollout.Module != "" {
		if err := r.complete(&rollout); err != nil {
			return nil, err
		}
	}
	started, err := controller.Start(ctx, rollout)
	if err != nil {
		return nil, err
	}
	return rpc.Document(started, r.audit(ctx, c, "gray.start", "rollout/"+started.ID, started.New))
}

// complete fills in what the module's manifest says.
func (r rollouts) complete(rollout *gray.Rollout) error {
	module, err := r.config.CMDB.Module(rollout.Module)
	if err != nil {
		return err
	}
	if len(rollout.Policy.Stages) == 0 && rollout.Policy.Name == "" {
		if rollout.Policy, err = r.config.GrayPolicy(module.Gray); err != nil {
			return fmt.Errorf("%w: gray policy of module %s: %w", ErrInput, rollout.Module, err)
		}
	}
	if rollout.MinCores == 0 {
		rollout.MinCores = r.minCores(module)
	}
	return nil
}

// minCores is that of the module's smallest device type; 0 where no type is known.
func (r rollouts) minCores(module cmdb.Module) int {
	types := slices.Clone(module.Scale.Types)
	for name := range module.Scale.Capacity {
		types = append(types, name)
	}
	least := 0
	for _, name := range types {
		if t, err := r.config.CMDB.DeviceType(name); err == nil && (least == 0 || t.Cores < least) {
			least = t.Cores
		}
	}
	return least
}

func (r rollouts) Get(ctx context.Context, q *connect.Request[pb.RolloutRequest]) (*connect.Response[pb.JSON], error) {
	controller, err := r.controller()
	if err != nil {
		return nil, err
	}
	id, err := r.rollout(ctx, q.Msg.Id)
	if err != nil {
		return nil, err
	}
	return rpc.Document(controller.Get(ctx, id))
}

func (r rollouts) List(ctx context.Context, q *connect.Request[pb.ListRolloutsRequest]) (*connect.Response[pb.Listing], error) {
	controller, err := r.controller()
	if err != nil {
		return nil, err
	}
	all, err := controller.List(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(one gray.Rollout) bool {
		return q.Msg.Service != "" && one.Service != q.Msg.Service || q.Msg.Open && one.Status.State.Final()
	})
	return rpc.Listing(rpc.Window(all, q.Msg.Page, func(one gray.Rollout) string { return one.ID }))
}

func (r rollouts) Watch(ctx context.Context, q *connect.Request[pb.RolloutRequest], stream *connect.ServerStream[pb.JSON]) error {
	controller, err := r.controller()
	if err != nil {
		return err
	}
	id, err := r.rollout(ctx, q.Msg.Id)
	if err != nil {
		return err
	}
	for event, err := range controller.Watch(ctx, id) {
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("control: encode an event: %w", err)
		}
		if err := stream.Send(&pb.JSON{Json: encoded}); err != nil {
			return err
		}
	}
	return nil
}

// maxAwait bounds one call of Await; whoever waits longer calls again, and so survives a restart of the server.
const maxAwait = time.Minute

func (r rollouts) Await(ctx context.Context, q *connect.Request[pb.AwaitRolloutRequest]) (*connect.Response[pb.JSON], error) {
	controller, err := r.controller()
	if err != nil {
		return nil, err
	}
	wait, err := rpc.Duration("wait", q.Msg.Wait, maxAwait)
	if err != nil {
		return nil, err
	}
	bound, cancel := context.WithTimeout(ctx, min(wait, maxAwait))
	defer cancel()
	for event, err := range controller.Watch(bound, q.Msg.Id) {
		if err != nil && bound.Err() == nil {
			return nil, err
		}
		if err != nil || event.To.Final() {
			break
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return rpc.Document(controller.Get(ctx, q.Msg.Id))
}

type order func(ctx context.Context, id, actor, why string) (gray.Rollout, error)

func (r rollouts) order(ctx context.Context, q *pb.RolloutRequest, name string, pick func(*gray.Controller) order) (*connect.Response[pb.JSON], error) {
	controller, err := r.controller()
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	id, err := r.rollout(ctx, q.Id)
	if err != nil {
		return nil, err
	}
	rollout, err := pick(controller)(ctx, id, c.Actor, c.Reason)
	if err != nil {
		return nil, err
	}
	return rpc.Document(rollout, r.audit(ctx, c, "gray."+name, "rollout/"+id, nil))
}

func (r rollouts) Abort(ctx context.Context, q *connect.Request[pb.RolloutRequest]) (*connect.Response[pb.JSON], error) {
	return r.order(ctx, q.Msg, "abort", func(c *gray.Controller) order { return c.Abort })
}

func (r rollouts) Promote(ctx context.Context, q *connect.Request[pb.RolloutRequest]) (*connect.Response[pb.JSON], error) {
	return r.order(ctx, q.Msg, "promote", func(c *gray.Controller) order { return c.Promote })
}

func (r rollouts) Pause(ctx context.Context, q *connect.Request[pb.RolloutRequest]) (*connect.Response[pb.JSON], error) {
	return r.order(ctx, q.Msg, "pause", func(c *gray.Controller) order { return c.Pause })
}

func (r rollouts) Resume(ctx context.Context, q *connect.Request[pb.RolloutRequest]) (*connect.Response[pb.JSON], error) {
	return r.order(ctx, q.Msg, "resume", func(c *gray.Controller) order { return c.Resume })
}
