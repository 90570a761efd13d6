package l5

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// CallOption changes one Call.
type CallOption func(*callConfig)

type callConfig struct {
	request    Request
	retries    int
	idempotent bool
	hedged     bool
}

// For sets what the call says about itself. Attempts that were made before are avoided beside Request.Avoid.
func For(request Request) CallOption {
	return func(c *callConfig) {
		c.request = request
		c.request.Avoid = slices.Clip(request.Avoid)
	}
}

// Retries sets how many attempts may follow the first. Default: 2.
func Retries(n int) CallOption { return func(c *callConfig) { c.retries = max(n, 0) } }

// Idempotent says that making the call twice does no harm. Without it an attempt is followed by another only if the
// first had no effect for certain: nobody listened, or the callee refused it for overload.
func Idempotent() CallOption { return func(c *callConfig) { c.idempotent = true } }

// Hedged makes a second attempt on another instance when the first takes longer than 95 of 100 calls do, takes the answer
// that comes first, and cancels the context of the other attempt. It implies Idempotent. It is out of force until
// enough calls were seen, and outside Run.
func Hedged() CallOption {
	return func(c *callConfig) { c.idempotent, c.hedged = true, true }
}

// Call makes a call of service: it routes, lets do make an attempt, tells how it went, and makes another attempt on
// another instance if that may help, is safe, and is paid for by the retry budget. While the service is so
// overloaded that calls are not even sent, nothing is attempted again.
//
// Do is given the context of the attempt and must heed its end; Run waits for attempts that lost. It does not call Done.
// An error of do counts as a failure of the instance, but for one that matches ErrOverloaded; what is no fault of
// the instance, such as "not found", belongs into T. A hedged call counts as one: the attempt that lost counts as nothing.
//
// The error is do's last, or Route's.
func Call[T any](ctx context.Context, client *Client, service string, do func(context.Context, Route) (T, error), options ...CallOption) (T, error) {
	config := callConfig{retries: 2}
	for _, option := range options {
		option(&config)
	}
	c := &caller[T]{callConfig: config, client: client, service: service, do: do}
	return c.run(ctx)
}

// caller is one Call.
type caller[T any] struct {
	callConfig
	client  *Client
	service string
	do      func(context.Context, Route) (T, error)
}

// result is what an attempt came to.
type result[T any] struct {
	value T
	err   error
}

// run makes attempts until one succeeds or none may follow.
func (c *caller[T]) run(ctx context.Context) (T, error) {
	for attempt := 0; ; attempt++ {
		route, err := c.route(ctx)
		if err != nil {
			var none T
			return none, err
		}
		var r result[T]
		if after := c.hedgeAfter(route); after > 0 {
			r = c.hedge(ctx, route, after)
		} else {
			r = c.attempt(ctx, route)
		}
		if r.err == nil || attempt == c.retries || !c.again(ctx, route.picks.service, r.err) {
			return r.value, r.err
		}
		if errors.Is(r.err, ErrOverloaded) && !pause(ctx, attempt) {
			return r.value, r.err
		}
	}
}

// route picks an instance that was not tried before, if there is one, and refuses a call that has less time left than any
// call takes.
func (c *caller[T]) route(ctx context.Context) (Route, error) {
	route, err := c.client.RouteFor(ctx, c.service, c.request)
	if err != nil {
		return route, err
	}
	s := route.picks.service
	if s.hopeless(ctx) {
		route.Done(Outcome{Err: context.Canceled})
		return Route{}, s.turnAway(limit.TooLate)
	}
	c.request.Avoid = append(c.request.Avoid, route)
	return route, nil
}

// hopeless reports whether ctx ends before any call could be answered. It looks at the clock, where admit does with the
// last tick.
func (s *service) hopeless(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < time.Duration(s.guard.least.Load())
}

// attempt makes one and tells how it went.
func (c *caller[T]) attempt(ctx context.Context, route Route) result[T] {
	begin := time.Now()
	value, err := c.do(ctx, route)
	route.Done(Outcome{Err: err, Latency: time.Since(begin)})
	return result[T]{value: value, err: err}
}

// again decides whether an attempt may follow one that ended with err.
func (c *caller[T]) again(ctx context.Context, s *service, err error) bool {
	if ctx.Err() != nil || !c.idempotent && !unreachable(err) && !errors.Is(err, ErrOverloaded) {
		return false
	}
	return !s.hopeless(ctx) && s.guard.gate.Again(c.request.priority(ctx))
}

// pause waits before an attempt that follows a rejection, longer each time and never as long as another; false: the context ended.
func pause(ctx context.Context, attempt int) bool {
	most := 20 * time.Millisecond << min(attempt, 4)
	timer := time.NewTimer(most/2 + rand.N(most/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hedgeAfter is when a second attempt is to follow the one on route; 0: never.
func (c *caller[T]) hedgeAfter(route Route) time.Duration {
	if !c.hedged {
		return 0
	}
	return time.Duration(route.picks.service.guard.hedge.Load())
}

// hedge makes an attempt, and a second one if the first takes too long. The first success wins; the context of the
// other attempt ends.
func (c *caller[T]) hedge(ctx context.Context, route Route, after time.Duration) result[T] {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result[T], 2) // so that an attempt that lost does not wait for anybody
	if !c.launch(ctx, route, results) {
		return c.attempt(ctx, route)
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	running := 1
	for {
		select {
		case r := <-results:
			running--
			if r.err == nil || running == 0 {
				return r
			}
		case <-timer.C:
			if !route.picks.service.guard.gate.Again(c.request.priority(ctx)) {
				continue
			}
			second, err := c.route(ctx)
			if err == nil && c.launch(ctx, second, results) {
				running++
			} else if err == nil {
				second.Done(Outcome{Err: context.Canceled})
			}
		case <-ctx.Done():
			// Attempts heed the context, and theirs is the error that says more; but they need not be waited for.
			return result[T]{err: context.Cause(ctx)}
		}
	}
}

// launch makes an attempt in a goroutine that Run waits for; false: Run is not running. An attempt whose context ended says
// nothing about the instance: the other one won, or nobody waits any more.
func (c *caller[T]) launch(ctx context.Context, route Route, results chan<- result[T]) bool {
	return c.client.spawn(func(context.Context) {
		begin := time.Now()
		value, err := c.do(ctx, route)
		outcome := Outcome{Err: err, Latency: time.Since(begin)}
		if err != nil && errors.Is(ctx.Err(), context.Canceled) {
			outcome.Err = context.Canceled
		}
		route.Done(outcome)
		results <- result[T]{value: value, err: err}
	})
}
