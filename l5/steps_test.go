package l5_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// A deadline that was set before the clock stepped is as far away as it was: no call is refused for the step, and one that really
// comes too late still is.
func TestStepsMoveNoDeadline(t *testing.T) {
	t.Parallel()
	var clock clocktest.Clock
	client := guarded(t, 3, func(c *l5.Config) { l5.SetClock(c, clock.Now) })
	route := func(left time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		r, err := client.Route(ctx, "a")
		r.Done(l5.Outcome{Err: context.Canceled})
		return err
	}
	tooLate := func(when string) {
		t.Helper()
		l5test.Await(t, "a call with 50 ms left is refused "+when, func() bool {
			feed(t, client, 10, time.Second)
			return errors.Is(route(50*time.Millisecond), context.DeadlineExceeded)
		})
	}
	tooLate("by a service that takes a second")
	clock.Step(72 * time.Hour)
	l5test.Await(t, "a tick sees the clock go forward", func() bool { return time.Until(client.Soonest("a")) > time.Hour })
	tooLate("after the step")
	for range 100 {
		feed(t, client, 10, time.Second)
		if err := route(time.Minute); err != nil {
			t.Fatalf("with a minute left, after a step forward: %v", err)
		}
	}
	clock.Step(-144 * time.Hour)
	l5test.Await(t, "a tick sees the clock go back", func() bool { return time.Until(client.Soonest("a")) < -time.Hour })
	if err := route(time.Minute); err != nil {
		t.Errorf("with a minute left, after a step back: %v", err)
	}
	for _, instance := range client.Explain("a").Instances {
		if instance.Failures > 0 || instance.Health.String() != "up" {
			t.Errorf("%s is %v after %d failures", instance.Addr, instance.Health, instance.Failures)
		}
	}
}
