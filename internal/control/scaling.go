package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// scaling serves ScaleService.
type scaling struct{ *API }

func (s scaling) controller() (*scale.Controller, error) {
	if s.config.Scale == nil {
		return nil, fmt.Errorf("%w: scale", ErrAbsent)
	}
	return s.config.Scale, nil
}

func (s scaling) Status(ctx context.Context, q *connect.Request[pb.ScaleRequest]) (*connect.Response[pb.Listing], error) {
	controller, err := s.controller()
	if err != nil {
		return nil, err
	}
	if q.Msg.Module != "" {
		one, err := controller.Status(ctx, q.Msg.Module)
		return rpc.Listing([]scale.Status{one}, "", err)
	}
	all, err := controller.List(ctx)
	return rpc.Listing(all, "", err)
}

type byHand func(ctx context.Context, module string, n int, actor string, dryRun bool) (scale.Plan, error)

func (s scaling) byHand(ctx context.Context, q *pb.ScaleRequest, name string, pick func(*scale.Controller) byHand) (*connect.Response[pb.JSON], error) {
	controller, err := s.controller()
	if err != nil {
		return nil, err
	}
	c, err := s.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	if q.Count < 0 {
		return nil, rpc.Invalid("count", q.Count, "give 1 or more, or 0 for 1")
	}
	if s.config.ScaleOff && !q.DryRun {
		return nil, fmt.Errorf("%w: the decider, which carries orders out; start the flow itself: zhiyun flow run expand module=%s count=%d", ErrAbsent, q.Module, max(q.Count, 1))
	}
	plan, err := pick(controller)(ctx, q.Module, max(int(q.Count), 1), c.Actor, q.DryRun)
	if errors.Is(err, scale.ErrNotFound) {
		err = s.unscaled(q.Module, err)
	}
	if err != nil || q.DryRun {
		return rpc.Document(plan, err)
	}
	return rpc.Document(plan, s.audit(ctx, c, "scale."+name, "module/"+q.Module, plan.Order.Names()))
}

// unscaled says why a module that there is cannot be scaled.
func (s scaling) unscaled(name string, err error) error {
	m, missing := s.config.CMDB.Module(name)
	switch {
	case missing != nil:
		return missing
	case len(m.Scale.Capacity) == 0:
		return fmt.Errorf("%w: module %s says nowhere what a device carries; add it to its manifest, as in scale: {capacity: {DEVICE_TYPE: 500}}, "+
			"or start the flow itself: zhiyun flow run expand module=%s count=1", scale.ErrRefused, name, name)
	}
	return err
}

func (s scaling) Out(ctx context.Context, q *connect.Request[pb.ScaleRequest]) (*connect.Response[pb.JSON], error) {
	return s.byHand(ctx, q.Msg, "out", func(c *scale.Controller) byHand { return c.Out })
}

func (s scaling) In(ctx context.Context, q *connect.Request[pb.ScaleRequest]) (*connect.Response[pb.JSON], error) {
	return s.byHand(ctx, q.Msg, "in", func(c *scale.Controller) byHand { return c.In })
}

func (s scaling) Orders(ctx context.Context, q *connect.Request[pb.ScaleRequest]) (*connect.Response[pb.Listing], error) {
	controller, err := s.controller()
	if err != nil {
		return nil, err
	}
	orders, err := controller.Orders(ctx, q.Msg.Module)
	slices.Reverse(orders)
	return rpc.Listing(orders[:min(len(orders), rpc.MaxPage)], "", err)
}
