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
	load     *balance.Load // of endpoint
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
	if r.endpoint == nil {
		return
	}
	r.picks.gate.Leave()
	r.endpoint.done(r.load, o)
	if r.picks.observed {
		r.picks.service.client.config.Observer.Done(r, o)
	}
}

// picks is what is chosen from: an immutable snapshot of one class of a service's calls.
type picks struct {
	picker    *balance.Picker
	endpoints []*endpoint // by the picker's indexes
	gate      *limit.Gate // of the service
	bounded   bool        // calls in flight per instance are: endpoint.ceiling
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

// route makes one pick that the guard admits.
func (p *picks) route(ctx context.Context) (Route, error) {
	if err := p.service.admit(ctx); err != nil {
		return Route{}, err
	}
	random := rand.Uint64()
	route, err := p.pick(random, random)
	if err != nil {
		return p.unpicked(limit.PriorityOf(ctx), err)
	}
	return route, nil
}

// fullDraws is how many picks find a full instance before the call is refused, or goes to one if it is critical.
const fullDraws = 3

// pick makes one pick, or returns errFull. Latency and health are in the weights.
func (p *picks) pick(random, hash uint64) (Route, error) {
	for range fullDraws {
		i, load := p.picker.Pick(random, hash)
		if load == nil {
			return p.elsewhere(random, hash)
		}
		e := p.endpoints[i]
		if n := load.Begin(); !p.bounded || n <= int(e.ceiling.Load()) {
			return Route{endpoint: e, load: load, picks: p}, nil
		}
		load.End()
		e.state.guard.full.Add(1)
		random = rand.Uint64()
		hash = random
	}
	return Route{}, errFull
}

// elsewhere picks where there is no picker of its own: among destinations, or nowhere.
func (p *picks) elsewhere(random, hash uint64) (Route, error) {
	if len(p.parts) > 0 {
		return p.part(random, hash).pick(random*0x9e3779b97f4a7c15, hash)
	}
	return Route{}, p.err
}

// unpicked ends a call that was admitted and found no instance, because of err. A critical one goes to an instance that is
// full rather than nowhere, unless Config.MaxInFlight says otherwise.
func (p *picks) unpicked(priority limit.Priority, err error) (Route, error) {
	s := p.service
	if err == errFull && priority == limit.Critical && s.client.config.MaxInFlight == 0 {
		random := rand.Uint64()
		if len(p.parts) > 0 {
			p = p.part(random, random)
		}
		if i, load := p.picker.Pick(random, random); load != nil {
			load.Begin()
			return Route{endpoint: p.endpoints[i], load: load, picks: p}, nil
		}
	}
	p.gate.Leave()
	if err == errFull {
		return Route{}, s.turnAway(limit.InstanceFull)
	}
	return Route{}, s.refuse(reasonOf(err), err)
}

// Route picks an instance of service for one call. The first call for a service subscribes to it and waits for its
// instances until ctx ends; if the name service cannot be reached, they come from the device's table. After that Route
// neither blocks nor allocates, and goes on from what is known when the name service is gone. The error is a *RouteError that
// matches ErrNoInstance, ErrOverloaded, ErrDenied, context.DeadlineExceeded when ctx ends before any call could be
// answered, or the error of ctx.
func (c *Client) Route(ctx context.Context, service string) (Route, error) {
	if s := c.known(service); s != nil {
		if p := s.picks.Load(); p != nil {
			return p.route(ctx)
		}
	}
	return c.firstRoute(ctx, service)
}

// nearSlots is how many services are found by a look at the last letters and the length of their name. It is a power of two.
const nearSlots = 128

// nearSlot is where a service of that name is, if one that came before it is not there. It need not be good, only fast: to hash
// a name for the map of all services costs a tenth of a call.
func nearSlot(name string) uint {
	n := uint(len(name))
	if n < 2 {
		return 0
	}
	return (n<<4 ^ uint(name[n-1]) ^ uint(name[n-2])<<2) % nearSlots
}

// known returns a service in use; nil: it is not.
func (c *Client) known(name string) *service {
	if s := c.near[nearSlot(name)].Load(); s != nil && s.name == name {
		return s
	}
	return (*c.services.Load())[name]
}

// firstRoute subscribes and waits.
func (c *Client) firstRoute(ctx context.Context, name string) (Route, error) {
	p, err := c.firstPicks(ctx, name)
	if err != nil {
		return Route{}, err
	}
	return p.route(ctx)
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
