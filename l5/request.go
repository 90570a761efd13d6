package l5

import (
	"context"
	"math/rand/v2"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Label is one label of a call, matched by the routes of the service's rules.
type Label = rule.Label

// Request is what a call says about itself. The zero value says nothing. It is not kept: its slices may be the caller's
// own, on its stack.
type Request struct {
	// Hash keeps calls of one key at one instance where the service's policy goes by hashes (balance.Maglev,
	// balance.RingHash); Hash makes one of a string. 0: none, any instance will do.
	Hash uint64
	// Labels are matched by the routes of the service's rules.
	Labels []Label
	// Avoid are routes that were taken for the same call before, by a retry or a hedge: another instance is picked if there
	// is any that takes calls, else one of them.
	Avoid []Route
	// Priority counts instead of that of the context, unless it is limit.Normal.
	Priority limit.Priority
}

// Hash returns the hash of a key, for Request.Hash. It is the same in every process and version.
func Hash(key string) uint64 { return balance.Hash(key) }

// priority is the request's own or that of its context.
func (r *Request) priority(ctx context.Context) limit.Priority {
	if r.Priority != limit.Normal {
		return r.Priority
	}
	return limit.PriorityOf(ctx)
}

// RouteFor is Route for a call that says something about itself. It allocates nothing once the service is known.
func (c *Client) RouteFor(ctx context.Context, service string, request Request) (Route, error) {
	if s := c.known(service); s != nil {
		if p := s.picks.Load(); p != nil {
			return p.routeFor(ctx, &request)
		}
	}
	p, err := c.firstPicks(ctx, service)
	if err != nil {
		return Route{}, err
	}
	return p.routeFor(ctx, &request)
}

// routeFor picks among the candidates of the request's class, if the guard admits the call.
func (p *picks) routeFor(ctx context.Context, request *Request) (Route, error) {
	if err := p.service.admitFor(ctx, request.Priority); err != nil {
		return Route{}, err
	}
	if p.classes != nil && len(request.Labels) > 0 {
		p = p.classes.picks[p.classes.table.Class(request.Labels)]
	}
	random := rand.Uint64()
	hash := request.Hash
	if hash == 0 {
		hash = random
	}
	if len(p.parts) > 0 {
		p = p.part(random, hash)
	}
	route, err := p.pick(random, hash)
	if err != nil {
		return p.unpicked(request.priority(ctx), err)
	}
	if len(request.Avoid) == 0 || !route.in(request.Avoid) {
		return route, nil
	}
	return p.another(route, request.Avoid)
}

// redraws is how often a call that is to avoid instances is drawn anew before all candidates are looked at.
const redraws = 3

// another gives route up for one that is not to be avoided, if there is any.
func (p *picks) another(route Route, avoid []Route) (Route, error) {
	for range redraws {
		random := rand.Uint64()
		next, err := p.pick(random, random)
		if err != nil {
			break // the others are full: what is held already is better
		}
		if !next.in(avoid) {
			route.load.End()
			return next, nil
		}
		next.load.End()
	}
	for from, i := rand.IntN(len(p.endpoints)), 0; i < len(p.endpoints); i++ {
		e := p.endpoints[(from+i)%len(p.endpoints)]
		next := Route{endpoint: e, load: e.load, picks: p}
		if next.in(avoid) {
			continue
		}
		if n := e.load.Begin(); p.bounded && n > int(e.ceiling.Load()) {
			e.load.End()
			continue
		}
		route.load.End()
		return next, nil
	}
	return route, nil
}

// in reports whether r leads to the instance of one of routes.
func (r Route) in(routes []Route) bool {
	for i := range routes {
		if routes[i].endpoint == r.endpoint {
			return true
		}
	}
	return false
}
