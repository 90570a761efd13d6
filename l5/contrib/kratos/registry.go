package l5kratos

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/go-kratos/kratos/v2/registry"

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
