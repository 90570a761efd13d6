package l5

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// Route is one pick: where to send one call. It is a small value; the zero value has no address. Call Done exactly
// once when the call is over, whatever came of it: the pick counts as a call in flight until then.
type Route struct {
	endpoint *endpoint
	load     *balance.Load
	picks    *picks
}

// Outcome says how a call went.
type Outcome struct {
	// Err is nil for a success. An Err that matches ErrOverloaded is a rejection by the callee and one that matches
	// context.Canceled the caller's own doing: neither is a failure.
	Err error
	// Latency of the call, as the caller measured it. Only that of successes counts; 0 is taken as very fast.
	Latency time.Duration
	// Load is what the callee said of itself with its answer; the zero value says nothing.
	Load limit.Load
}

// Addr returns where to connect: host:port.
func (r Route) Addr() string {
	if r.endpoint == nil {
		return ""
	}
	return r.endpoint.addr
}

// Instance returns what the name service says about the instance. It allocates nothing; its labels are not to be
// changed.
func (r Route) Instance() Instance {
	if r.endpoint == nil {
		return Instance{}
	}
	return *r.endpoint.state.instance.Load()
}

// Panic reports whether instances that are down were among those to choose from, because leaving them out would take
// more capacity away than Config.MaxEjected allows. Explain says which, and why.
func (r Route) Panic() bool { return r.picks != nil && r.picks.panic }

// Done tells how the call went. It does not block and allocates nothing for a success.
func (r Route) Done(o Outcome) {
	if r.endpoint != nil {
		r.picks.gate.Leave()
		r.endpoint.done(r.load, o)
	}
}

// picks is what is chosen from: an immutable snapshot of one service.
type picks struct {
	picker    *balance.Picker
	endpoints []*endpoint // by the picker's indexes
	gate      *limit.Gate // of the service
	bounded   bool        // calls in flight per instance are: endpoint.ceiling
	panic     bool
	err       error // why there is nothing to choose from
}

// route makes one pick that the guard admits. Latency and health are in the weights.
func (s *service) route(ctx context.Context, p *picks, hash uint64) (Route, error) {
	if err := s.admit(ctx); err != nil {
		return Route{}, err
	}
	route, err := p.route(ctx, hash)
	if err != nil {
		p.gate.Leave()
	}
	return route, err
}

// fullDraws is how many picks find a full instance before the call is refused, or goes to one if it is critical.
const fullDraws = 3

// route makes one pick.
func (p *picks) route(ctx context.Context, hash uint64) (Route, error) {
	for draw := 1; ; draw++ {
		i, load := p.picker.Pick(rand.Uint64(), hash)
		if load == nil {
			return Route{}, p.err
		}
		e := p.endpoints[i]
		if n := load.Begin(); !p.bounded || n <= int(e.ceiling.Load()) {
			return Route{endpoint: e, load: load, picks: p}, nil
		}
		e.state.guard.full.Add(1)
		if draw == fullDraws && e.service.client.config.MaxInFlight == 0 && limit.PriorityOf(ctx) == limit.Critical {
			return Route{endpoint: e, load: load, picks: p}, nil
		}
		load.End()
		if draw == fullDraws {
			return Route{}, e.service.turnAway(limit.InstanceFull)
		}
	}
}

// Route picks an instance of service for one call. The first call for a service subscribes to it and waits for its
// instances until ctx ends; if the name service cannot be reached, they come from the device's table. After that Route
// neither blocks nor allocates, and goes on from what is known when the name service is gone. The error is a *RouteError that
// matches ErrNoInstance, ErrOverloaded, ErrDenied, context.DeadlineExceeded when ctx ends before any call could be
// answered, or the error of ctx.
func (c *Client) Route(ctx context.Context, service string) (Route, error) {
	if s := (*c.services.Load())[service]; s != nil {
		if p := s.picks.Load(); p != nil {
			return s.route(ctx, p, 0)
		}
	}
	return c.firstRoute(ctx, service)
}

// firstRoute subscribes and waits.
func (c *Client) firstRoute(ctx context.Context, name string) (Route, error) {
	if err := CheckService(name); err != nil {
		return Route{}, &RouteError{Caller: c.config.Caller, Service: name, Err: err}
	}
	s := c.service(name)
	s.cold(ctx)
	p, err := s.wait(ctx)
	if err == nil {
		return s.route(ctx, p, 0)
	}
	reason := "the name service has not answered yet: is " + c.config.Target + " up?"
	if !c.running.Load() {
		reason = "Client.Run is not running"
	}
	return Route{}, &RouteError{Caller: c.config.Caller, Service: name, Reason: reason, Err: err}
}
