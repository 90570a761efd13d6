package l5grpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// draws is how many routes a pick takes to find one whose connection is ready.
const draws = 8

// Pick implements balancer.Picker.
func (p *pool) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	failure, conns := balancer.ErrNoSubConnAvailable, *p.conns.Load()
	for i := range 2 * draws {
		if i == draws {
			if ready, waiting := best(conns); ready == nil && waiting {
				return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
			} else if ready == nil {
				return balancer.PickResult{}, failure
			}
		}
		route, err := p.builder.client.Route(info.Ctx, p.service)
		if err != nil {
			return balancer.PickResult{}, refusal(err)
		}
		c := conns[route.Addr()]
		if c != nil && c.is(connectivity.Ready) {
			return balancer.PickResult{SubConn: c.sub, Done: p.done(info.Ctx, route), Metadata: hints(info.Ctx)}, nil
		}
		outcome := l5.Outcome{Err: context.Canceled} // no call was made
		if c != nil && c.is(connectivity.TransientFailure) {
			failed := *c.failed.Load()
			failure = status.Errorf(codes.Unavailable, "connect to %s: %v", route.Addr(), failed)
			if c.told.CompareAndSwap(false, true) {
				outcome.Err = failed
			}
		}
		route.Done(outcome)
	}
	if ready, _ := best(conns); ready != nil {
		return balancer.PickResult{SubConn: ready.sub}, nil // the draws were unlucky: better a call that is not told than none
	}
	return balancer.PickResult{}, failure
}

// best returns a connection that is ready, or else whether one may be soon.
func best(conns map[string]*conn) (ready *conn, waiting bool) {
	for _, c := range conns {
		switch connectivity.State(c.state.Load()) {
		case connectivity.Ready:
			return c, false
		case connectivity.Connecting, connectivity.Idle:
			waiting = true
		}
	}
	return nil, waiting
}

// done returns what tells the outcome.
func (p *pool) done(ctx context.Context, route l5.Route) func(balancer.DoneInfo) {
	begin := time.Now()
	return func(info balancer.DoneInfo) {
		outcome := l5.Outcome{Latency: latency(ctx, begin), Load: loadOf(info.Trailer)}
		if info.Err != nil {
			outcome.Err = p.builder.judge(info.Err)
		}
		route.Done(outcome)
	}
}

// refusal gives an error of routing its code. Without an instance, calls that wait for ready go on waiting.
func refusal(err error) error {
	switch {
	case errors.Is(err, l5.ErrDenied):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, l5.ErrOverloaded):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return err
}
