package l5

import (
	"context"
	"maps"
)

// Follow is Explain for those who keep up with a service, as a door to another protocol does: it subscribes, waits until
// something is known or ctx ends, and returns with the explanation a channel that is closed once it is out of date. A
// caller without a grant gets an explanation that says so. The error is a *RouteError.
func (c *Client) Follow(ctx context.Context, service string) (Explanation, <-chan struct{}, error) {
	if err := CheckService(service); err != nil {
		return Explanation{}, nil, &RouteError{Caller: c.config.Caller, Service: service, Err: err}
	}
	s := c.service(service)
	s.cold(ctx)
	if _, err := s.wait(ctx); err != nil {
		return Explanation{}, nil, &RouteError{Caller: c.config.Caller, Service: service, Reason: "the name service has not answered yet", Err: err}
	}
	s.mu.Lock()
	changed := s.changed // before the look: a change in between is seen twice, never missed
	s.mu.Unlock()
	return c.Explain(service), changed, nil
}

// Forget ends the subscription to a service, so that a process that looks up names which others choose does not hold on
// to all of them. It does nothing and returns false while calls are in flight or not reported yet: try again later. A later
// Route or Follow subscribes anew.
func (c *Client) Forget(service string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.services.Load()
	s := old[service]
	if s == nil {
		return true
	}
	if !s.quiet() {
		return false
	}
	next := maps.Clone(old)
	delete(next, service)
	c.services.Store(&next)
	c.near[nearSlot(service)].CompareAndSwap(s, nil)
	c.link.Unsubscribe(c.config.Caller, service)
	return true
}

// quiet reports whether nothing is under way and everything was reported.
func (s *service) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.departed) > 0 {
		return false
	}
	for _, e := range s.endpoints {
		if e.collect(); e.load.InFlight() != 0 || e.state.report != (counted{}) {
			return false
		}
	}
	return true
}
