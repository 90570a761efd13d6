package l5_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// guarded returns a client of a service "a" with some instances.
func guarded(t *testing.T, instances int, edit func(*l5.Config)) *l5.Client {
	t.Helper()
	s := l5test.NewServer(t, nil)
	var all []l5.Instance
	for i := range instances {
		all = append(all, l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100})
	}
	if err := s.Name().Register(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), edit)
	route, err := client.Route(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	route.Done(l5.Outcome{Err: context.Canceled})
	return client
}

// feed makes calls that took so long, as their outcomes say.
func feed(t *testing.T, client *l5.Client, calls int, took time.Duration) {
	t.Helper()
	for range calls {
		route, err := client.Route(context.Background(), "a")
		if err != nil {
			t.Fatal(err)
		}
		route.Done(l5.Outcome{Latency: took})
	}
}

func TestCallRetries(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		options []l5.CallOption
		errs    []error // of the attempts; those after them succeed
		want    int     // attempts
		err     error
	}{
		"success":                             {want: 1},
		"nobody listens":                      {errs: []error{syscall.ECONNREFUSED}, want: 2},
		"rejected":                            {errs: []error{l5.ErrOverloaded}, want: 2},
		"an effect is possible":               {errs: []error{broken}, want: 1, err: broken},
		"an effect is possible, and harmless": {options: []l5.CallOption{l5.Idempotent()}, errs: []error{broken, broken}, want: 3},
		"too often":                           {options: []l5.CallOption{l5.Idempotent()}, errs: []error{broken, broken, broken, broken}, want: 3, err: broken},
		"not at all": {
			options: []l5.CallOption{l5.Idempotent(), l5.Retries(0)}, errs: []error{broken}, want: 1, err: broken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := guarded(t, 3, nil)
			addrs := map[string]bool{}
			attempts := 0
			got, err := l5.Call(t.Context(), client, "a", func(_ context.Context, route l5.Route) (int, error) {
				addrs[route.Addr()] = true
				attempts++
				if attempts <= len(tt.errs) {
					return 0, tt.errs[attempts-1]
				}
				return attempts, nil
			}, tt.options...)
			if !errors.Is(err, tt.err) || (err == nil && got != tt.want) || attempts != tt.want {
				t.Errorf("%d attempts, answer %d, %v; want %d attempts, %v", attempts, got, err, tt.want, tt.err)
			}
			if len(addrs) < min(attempts, 2) {
				t.Errorf("%d attempts all went to %v", attempts, addrs)
			}
			for _, i := range client.Explain("a").Instances {
				if i.InFlight != 0 {
					t.Errorf("%s has %d calls in flight", i.Addr, i.InFlight)
				}
			}
		})
	}
}

// TestCallBudget: a service that fails gets no storm of retries, and once it rejects everything, no retry at all.
func TestCallBudget(t *testing.T) {
	t.Parallel()
	client := guarded(t, 2, func(c *l5.Config) { c.Guard.Budget.Floor = 1e-9; c.Failures = 1000 })
	broken := errors.New("broken")
	attempts := 0
	call := func(err error) {
		_, _ = l5.Call(t.Context(), client, "a", func(context.Context, l5.Route) (bool, error) {
			attempts++
			return false, err
		}, l5.Idempotent())
	}
	for range 30 {
		call(broken)
	}
	if attempts != 30 {
		t.Errorf("%d attempts of 30 calls although nothing ever succeeded", attempts)
	}
	if e := client.Explain("a"); e.Guard.Refused[limit.BudgetSpent] != 30 {
		t.Errorf("the explanation counts %d retries that were not paid for, want 30", e.Guard.Refused[limit.BudgetSpent])
	}
	feed(t, client, 100, time.Millisecond)
	l5test.Await(t, "a hundred successes pay for retries", func() bool { return client.Explain("a").Guard.Budget >= 4 })
	attempts = 0
	for range 2 {
		call(broken)
	}
	if attempts != 6 {
		t.Errorf("%d attempts of 2 calls with a budget for 4 more", attempts)
	}
}

// TestCallHedge: the answer of the second attempt is taken, the first is cancelled, and the call counts once.
func TestCallHedge(t *testing.T) {
	t.Parallel()
	client := guarded(t, 2, nil)
	feed(t, client, 100, time.Millisecond)
	l5test.Await(t, "it is known what is slow", func() bool { return client.Explain("a").Guard.HedgeAfter > 0 })
	before := client.Explain("a")
	cancelled := make(chan struct{})
	var attempts atomic.Int32
	addr, err := l5.Call(t.Context(), client, "a", func(ctx context.Context, route l5.Route) (string, error) {
		if attempts.Add(1) == 1 {
			<-ctx.Done()
			close(cancelled)
			return "", ctx.Err()
		}
		return route.Addr(), nil
	}, l5.Hedged())
	if err != nil || addr == "" {
		t.Fatalf("%q, %v", addr, err)
	}
	<-cancelled
	l5test.Await(t, "nothing is in flight", func() bool {
		e := client.Explain("a")
		return e.Instances[0].InFlight+e.Instances[1].InFlight == 0
	})
	after := client.Explain("a")
	for i := range after.Instances {
		was, is := before.Instances[i], after.Instances[i]
		want := uint64(0)
		if is.Addr == addr {
			want = 1
		}
		if is.Successes-was.Successes != want || is.Failures != was.Failures || is.Rejected != was.Rejected {
			t.Errorf("%s: %d successes, %d failures; want %d success and nothing else", is.Addr, is.Successes-was.Successes, is.Failures-was.Failures, want)
		}
	}
}

// TestDeadline refuses a call whose deadline is nearer than any answer.
func TestDeadline(t *testing.T) {
	t.Parallel()
	client := guarded(t, 1, nil)
	var refusal error
	l5test.Await(t, "a call with 50 ms left is refused by a service that takes a second", func() bool {
		feed(t, client, 10, time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var route l5.Route
		route, refusal = client.Route(ctx, "a")
		route.Done(l5.Outcome{Err: context.Canceled})
		return refusal != nil
	})
	var why *l5.RouteError
	if !errors.Is(refusal, context.DeadlineExceeded) || !errors.As(refusal, &why) || !strings.Contains(why.Reason, "hardly a call takes less than") {
		t.Errorf("the refusal says %v", refusal)
	}
	if client.Explain("a").Guard.Refused[limit.TooLate] == 0 {
		t.Error("it is not counted")
	}
	l5test.Await(t, "without answers nothing is refused for long", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		route, err := client.Route(ctx, "a")
		route.Done(l5.Outcome{Err: context.Canceled})
		return err == nil
	})
}

// TestInstanceLimit bounds the calls to an instance beyond its healthy latency, and lets go when it heals.
func TestInstanceLimit(t *testing.T) {
	t.Parallel()
	client := guarded(t, 1, func(c *l5.Config) { c.Guard.Limit = limit.Config{Healthy: 50 * time.Millisecond, Min: 1} })
	two := func() error { // calls at a time
		var refusal error
		for range 2 {
			route, err := client.Route(t.Context(), "a")
			if err != nil {
				refusal = err
				continue
			}
			defer route.Done(l5.Outcome{Err: context.Canceled})
		}
		return refusal
	}
	try := func(took time.Duration) {
		for range 40 {
			if route, err := client.Route(t.Context(), "a"); err == nil {
				route.Done(l5.Outcome{Latency: took})
			}
		}
	}
	try(time.Millisecond)
	if err := two(); err != nil {
		t.Errorf("healthy: %v", err)
	}
	var refusal error
	l5test.Await(t, "one call at a time", func() bool {
		try(100 * time.Millisecond)
		refusal = two()
		return refusal != nil
	})
	if !errors.Is(refusal, l5.ErrOverloaded) {
		t.Errorf("the refusal says %v", refusal)
	}
	if e := client.Explain("a"); e.Guard.Limit.Phase != limit.Trouble || e.Instances[0].Failures != 0 {
		t.Errorf("explained as %+v", e)
	}
	l5test.Await(t, "two at a time again", func() bool {
		try(time.Millisecond)
		return two() == nil
	})
}

// TestCapacity gives an instance that says it can do half of what the others can about half of the weight.
func TestCapacity(t *testing.T) {
	t.Parallel()
	client := guarded(t, 3, nil)
	const small = "127.0.0.1:2"
	l5test.Await(t, "the smaller instance gets less", func() bool {
		for range 100 {
			route, err := client.Route(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			load := limit.Load{Utilization: 0.5, Rate: 100}
			if route.Addr() == small {
				load.Utilization = 1
			}
			route.Done(l5.Outcome{Latency: time.Millisecond, Load: load})
		}
		for _, i := range client.Explain("a").Instances {
			if half := i.Weight > 40 && i.Weight < 60; half != (i.Addr == small) {
				return false
			}
		}
		return true
	})
}

// TestRouteDoneGuardedAllocates holds the hot path with all guards on to no allocation.
func TestRouteDoneGuardedAllocates(t *testing.T) {
	client := guarded(t, 3, func(c *l5.Config) {
		c.ReportEvery, c.TickEvery = time.Hour, time.Hour
		c.Guard.Limit.Healthy = time.Second
	})
	ctx, cancel := context.WithTimeout(limit.WithPriority(t.Context(), limit.Critical), time.Hour)
	defer cancel()
	allocs := testing.AllocsPerRun(1000, func() {
		route, _ := client.Route(ctx, "a")
		route.Done(l5.Outcome{Latency: time.Millisecond, Load: limit.Load{Utilization: 0.5}})
	})
	if allocs != 0 {
		t.Errorf("Route and Done allocate %v times", allocs)
	}
}

func TestGuardConfig(t *testing.T) {
	t.Parallel()
	_, err := l5.New(l5.Config{Target: "unix:///x", Caller: "a", Guard: limit.GateConfig{
		Throttle: limit.ThrottleConfig{K: -1}, Limit: limit.Config{Min: -1}, Budget: limit.BudgetConfig{Share: -1},
	}})
	if err == nil {
		t.Fatal("taken")
	}
	for _, part := range []string{"Throttle has K -1", "Healthy is 0s", "Min -1", "Budget has Share -1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}
