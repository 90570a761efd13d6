package l5kratos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// schemeLabel is the label of an instance that names its protocol, as Kratos does: grpc, grpcs, http or https.
const schemeLabel = "scheme"

// Names joins Kratos with a client of l5. It is safe for concurrent use.
type Names struct {
	client *l5.Client

	mu         sync.Mutex
	registered map[string][]*l5.Registration // guarded by mu; by Kratos' id
}

var (
	_ registry.Registrar = (*Names)(nil)
	_ registry.Discovery = (*Names)(nil)
	_ selector.Builder   = (*Names)(nil)
)

// New returns Names of a client, which must run.
func New(client *l5.Client) *Names {
	return &Names{client: client, registered: make(map[string][]*l5.Registration)}
}

// Register implements registry.Registrar: all endpoints, or none. Metadata become labels.
func (n *Names) Register(ctx context.Context, app *registry.ServiceInstance) error {
	var done []*l5.Registration
	for _, endpoint := range app.Endpoints {
		u, err := url.Parse(endpoint)
		if err == nil {
			labels := map[string]string{schemeLabel: u.Scheme, "version": app.Version}
			for name, value := range app.Metadata {
				labels[name] = value
			}
			var r *l5.Registration
			if r, err = n.client.Register(ctx, app.Name, u.Host, l5.WithLabels(labels)); err == nil {
				done = append(done, r)
				continue
			}
		}
		return errors.Join(fmt.Errorf("l5kratos: register %s: %w", endpoint, err), drain(ctx, done))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.registered[app.ID] = append(n.registered[app.ID], done...)
	return nil
}

// Deregister implements registry.Registrar: it drains, so that no call is lost.
func (n *Names) Deregister(ctx context.Context, app *registry.ServiceInstance) error {
	n.mu.Lock()
	done := n.registered[app.ID]
	delete(n.registered, app.ID)
	n.mu.Unlock()
	return drain(ctx, done)
}

func drain(ctx context.Context, all []*l5.Registration) (err error) {
	for _, r := range all {
		err = errors.Join(err, r.Drain(ctx))
	}
	return err
}

// GetService implements registry.Discovery.
func (n *Names) GetService(ctx context.Context, name string) ([]*registry.ServiceInstance, error) {
	known, _, err := n.client.Follow(ctx, name)
	return instances(known), err
}

// Watch implements registry.Discovery.
func (n *Names) Watch(ctx context.Context, name string) (registry.Watcher, error) {
	ctx, stop := context.WithCancel(ctx)
	return &watcher{client: n.client, name: name, ctx: ctx, stop: stop}, nil
}

// watcher is one Watch; Next is for one goroutine.
type watcher struct {
	client  *l5.Client
	name    string
	ctx     context.Context // of the Watch, which Kratos ends by Stop
	stop    context.CancelFunc
	changed <-chan struct{} // nil before the first Next
}

// Next implements registry.Watcher: the first returns what is known, each other one the next state.
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	if w.changed != nil {
		select {
		case <-w.changed:
		case <-w.ctx.Done():
			return nil, w.ctx.Err()
		}
	}
	known, changed, err := w.client.Follow(w.ctx, w.name)
	w.changed = changed
	return instances(known), err
}

// Stop implements registry.Watcher.
func (w *watcher) Stop() error {
	w.stop()
	return nil
}

// instances are those that may take calls: one that is ejected for now is among them, so that its connection is kept.
func instances(known l5.Explanation) []*registry.ServiceInstance {
	var out []*registry.ServiceInstance
	for _, i := range known.Instances {
		if i.Base <= 0 {
			continue
		}
		endpoints := []string{"grpc://" + i.Addr, "http://" + i.Addr}
		if scheme := i.Labels[schemeLabel]; scheme != "" {
			endpoints = []string{scheme + "://" + i.Addr}
		}
		out = append(out, &registry.ServiceInstance{ID: i.Addr, Name: known.Service, Version: i.Labels["version"], Metadata: i.Labels, Endpoints: endpoints})
	}
	return out
}

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
