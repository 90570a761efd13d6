package l5kratos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/selector"

	"github.com/zhiyun-ops/zhiyun/l5"
)

var _ selector.Builder = (*Names)(nil)

// Build implements selector.Builder.
func (n *Names) Build() selector.Selector { return &picker{client: n.client} }

// picker selects among the nodes of one service.
type picker struct {
	client *l5.Client
	nodes  atomic.Pointer[nodes]
}

// nodes are what was applied last.
type nodes struct {
	all    []selector.Node
	byAddr map[string]selector.Node
}

func newNodes(all []selector.Node) *nodes {
	n := &nodes{all: all, byAddr: make(map[string]selector.Node, len(all))}
	for _, node := range all {
		n.byAddr[node.Address()] = node
	}
	return n
}

// Apply implements selector.Rebalancer.
func (p *picker) Apply(all []selector.Node) { p.nodes.Store(newNodes(all)) }

// Select implements selector.Selector.
func (p *picker) Select(ctx context.Context, options ...selector.SelectOption) (selector.Node, selector.DoneFunc, error) {
	var o selector.SelectOptions
	for _, option := range options {
		option(&o)
	}
	from := p.nodes.Load()
	if from != nil && len(o.NodeFilters) > 0 {
		left := from.all
		for _, filter := range o.NodeFilters {
			left = filter(ctx, left)
		}
		from = newNodes(left)
	}
	if from == nil || len(from.all) == 0 {
		return nil, nil, selector.ErrNoAvailable
	}
	for range 8 {
		route, err := p.client.Route(ctx, from.all[0].ServiceName())
		if err != nil {
			return nil, nil, err
		}
		if node := from.byAddr[route.Addr()]; node != nil {
			return chosen(ctx, node), done(route), nil
		}
		route.Done(l5.Outcome{Err: context.Canceled}) // no call is made: its connection is not ready, or a filter left it out
	}
	return chosen(ctx, from.all[rand.IntN(len(from.all))]), func(context.Context, selector.DoneInfo) {}, nil
}

// chosen tells Kratos' middleware of the node.
func chosen(ctx context.Context, node selector.Node) selector.Node {
	if peer, ok := selector.FromPeerContext(ctx); ok {
		peer.Node = node
	}
	return node
}

func done(route l5.Route) selector.DoneFunc {
	begin := time.Now()
	return func(_ context.Context, info selector.DoneInfo) {
		outcome := l5.Outcome{Latency: time.Since(begin)}
		switch code := kerrors.Code(info.Err); {
		case code == 499:
			outcome.Err = context.Canceled
		case code == 429:
			outcome.Err = fmt.Errorf("%w: %w", l5.ErrOverloaded, info.Err)
		case code >= 500 && code != 501:
			outcome.Err = info.Err
		}
		route.Done(outcome)
	}
}
