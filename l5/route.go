package l5

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
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
	if r.endpoint == nil {
		return
	}
	r.endpoint.done(r.load, o)
	if r.picks.observed {
		r.picks.service.client.config.Observer.Done(r, o)
	}
}

// picks is what is chosen from: an immutable snapshot of one class of a service's calls.
type picks struct {
	picker    *balance.Picker
	endpoints []*endpoint // by the picker's indexes
	limit     int         // calls in flight per instance; 0: none
	panic     bool
	observed  bool // Config.Observer is to be told
	service   *service

	// What plain picks do not read.
	parts    []*picks // the destinations of a route that splits calls; the picker is empty then
	upTo     uint32   // of 2^32: up to which draw a call goes to this part
	classes  *classes // of the service
	fellBack bool     // the route's destinations take no calls
	err      error    // why there is nothing to choose from
}

// pick makes one pick. Latency and health are in the weights.
func (p *picks) pick(random, hash uint64) (Route, error) {
	i, load := p.picker.Pick(random, hash)
	if load == nil {
		return p.elsewhere(random, hash)
	}
	if n := load.Begin(); p.limit > 0 && n > p.limit {
		load.End()
		return Route{}, p.service.refuse(refusedOverloaded, p.service.overloaded)
	}
	return Route{endpoint: p.endpoints[i], load: load, picks: p}, nil
}

// elsewhere picks where there is no picker of its own: among destinations, or nowhere.
func (p *picks) elsewhere(random, hash uint64) (Route, error) {
	if len(p.parts) > 0 {
		return p.part(random, hash).pick(random*0x9e3779b97f4a7c15, hash)
	}
	return Route{}, p.service.refuse(reasonOf(p.err), p.err)
}

// Route picks an instance of service for one call. The first call for a service subscribes to it and waits for its
// instances until ctx ends; if the name service cannot be reached, they come from the device's table. After that Route neither blocks nor allocates, and goes on from what is known
// when the name service is gone. The error is a *RouteError that matches ErrNoInstance, ErrOverloaded, ErrDenied or
// the error of ctx.
func (c *Client) Route(ctx context.Context, service string) (Route, error) {
	if s := (*c.services.Load())[service]; s != nil {
		if p := s.picks.Load(); p != nil {
			random := rand.Uint64()
			return p.pick(random, random)
		}
	}
	return c.firstRoute(ctx, service)
}

// firstRoute subscribes and waits.
func (c *Client) firstRoute(ctx context.Context, name string) (Route, error) {
	p, err := c.firstPicks(ctx, name)
	if err != nil {
		return Route{}, err
	}
	random := rand.Uint64()
	return p.pick(random, random)
}

// firstPicks subscribes and waits until something is known.
func (c *Client) firstPicks(ctx context.Context, name string) (*picks, error) {
	if err := CheckService(name); err != nil {
		return nil, &RouteError{Caller: c.config.Caller, Service: name, Err: err}
	}
	s := c.service(name)
	s.cold(ctx)
	p, err := s.wait(ctx)
	if err == nil {
		return p, nil
	}
	reason := "the name service has not answered yet: is " + c.config.Target + " up?"
	if !c.running.Load() {
		reason = "Client.Run is not running"
	}
	return nil, s.refuse(refusedUnknown, s.err(err, reason))
}
