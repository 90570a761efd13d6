package l5grpc

import (
	"context"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// picker picks among the connections of a moment.
type picker struct {
	*known
	conns map[string]*conn
	state connectivity.State // of all of them together
}

// draws is how many routes a pick takes to find one whose connection is ready.
const draws = 16

// Pick implements balancer.Picker.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	failed := balancer.ErrNoSubConnAvailable // there is another picker as soon as there is any news
	if p.state == connectivity.Connecting {
		return balancer.PickResult{}, failed
	}
	for range draws {
		route, err := p.client.Route(info.Ctx, p.Service)
		if err != nil {
			return balancer.PickResult{}, refusal(err)
		}
		c := p.conns[route.Addr()]
		if c != nil && c.is(connectivity.Ready) {
			return balancer.PickResult{SubConn: c.sub, Done: p.done(info.Ctx, route), Metadata: hints(info.Ctx)}, nil
		}
		outcome := l5.Outcome{Err: context.Canceled} // no call was made
		if c != nil && c.is(connectivity.TransientFailure) {
			failure := c.failed.Load()
			failed = status.Errorf(codes.Unavailable, "connect to %s: %v", route.Addr(), failure.error)
			if failure.told.CompareAndSwap(false, true) {
				outcome.Err = failure.error
			}
		}
		route.Done(outcome)
	}
	for _, c := range p.conns {
		if p.state == connectivity.Ready && c.is(connectivity.Ready) {
			return balancer.PickResult{SubConn: c.sub}, nil // the draws were unlucky: better a call that is not told than none
		}
	}
	return balancer.PickResult{}, failed
}

// done returns what tells the outcome.
func (p *picker) done(ctx context.Context, route l5.Route) func(balancer.DoneInfo) {
	begin := time.Now()
	return func(info balancer.DoneInfo) {
		outcome := l5.Outcome{Latency: latency(ctx, begin), Load: loadOf(info.Trailer)}
		if info.Err != nil {
			outcome.Err = p.judge(info.Err)
		}
		route.Done(outcome)
	}
}
