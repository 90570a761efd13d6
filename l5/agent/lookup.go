package agent

import (
	"context"
	"slices"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// View is one service as this device sees it. It and what it points at are shared and not to be changed.
type View struct {
	Service  string
	Epoch    string   // of the name service's history
	Revision int64    // of the state
	Members  []Member // by address
	Panic    string   // why members that are down keep a weight; empty: none does
}

// Member is one instance of a View.
type Member struct {
	l5.Instance
	Weight float64        // in force: the effective weight, by what the agent's probes say; 0 takes no calls
	Health balance.Health // in the eyes of the agent
	Reason string         // of the health; empty for one that nobody ever doubted
}

// Lookup returns what is known about service for caller, and a channel that is closed when that may have changed, or
// was forgotten: then look it up again. The first Lookup subscribes upstream and waits for the answer until ctx ends; the
// subscription lasts for Config.Linger after the last. The error is a *l5.RouteError that matches l5.ErrDenied, with
// the channel to wait on, or the error of ctx, without. It is cheap: between changes all get one View.
func (a *Agent) Lookup(ctx context.Context, caller, service string) (View, <-chan struct{}, error) {
	fail := func(err error, reason string) error {
		return &l5.RouteError{Caller: caller, Service: service, Reason: reason, Err: err}
	}
	if err := l5.CheckService(service); err != nil {
		return View{}, nil, fail(err, "")
	}
	a.callers.ask(caller, service)
	defer func() { a.callers.release(caller, service, a.now()) }()
	for {
		view, changed := a.lookups.view(service)
		allowed, known, reason := a.callers.Verdict(caller, service)
		switch {
		case known && !allowed:
			return View{Service: service}, changed, fail(l5.ErrDenied, reason)
		case known && view != nil:
			return *view, changed, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return View{}, nil, fail(context.Cause(ctx), "the name service has not answered yet")
		}
	}
}

// Services returns the names of the services that are known on this device, in order.
func (a *Agent) Services() []string {
	names := a.hub.Services()
	slices.Sort(names)
	return names
}

// lookups makes Views when somebody asks, and keeps each until it changes.
type lookups struct {
	agent *Agent

	mu   sync.Mutex
	kept map[string]*lookup // guarded by mu; by service
}

type lookup struct {
	view    *View // nil: not known
	changed chan struct{}
}

func newLookups(a *Agent) *lookups { return &lookups{agent: a, kept: make(map[string]*lookup)} }

// view returns the View of service, nil if it is not known, and a channel that is closed when it changes.
func (l *lookups) view(service string) (*View, <-chan struct{}) {
	l.mu.Lock()
	kept := l.kept[service]
	if kept == nil {
		kept = &lookup{changed: make(chan struct{})}
		l.kept[service] = kept
	}
	view := kept.view
	l.mu.Unlock()
	if view == nil {
		view = l.agent.look(service) // what is published after this is read closes the channel
		l.mu.Lock()
		kept.view = view
		l.mu.Unlock()
	}
	return view, kept.changed
}

// change says that the state, a verdict or the health of service changed.
func (l *lookups) change(service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kept := l.kept[service]; kept != nil {
		delete(l.kept, service)
		close(kept.changed)
	}
}

// look makes the View of service from the state that is published; nil if there is none.
func (a *Agent) look(service string) *View {
	state, ok := a.hub.View(service)
	if !ok {
		return nil
	}
	view := &View{Service: service, Epoch: state.Epoch, Revision: state.Revision, Members: make([]Member, 0, len(state.Instances))}
	for _, p := range state.Instances {
		instance := l5.InstanceFromProto(p)
		instance.Service = service
		view.Members = append(view.Members, Member{Instance: instance, Weight: instance.EffectiveWeight()})
	}
	a.health.apply(view)
	return view
}
