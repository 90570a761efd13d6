package limit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// A gate before a service of which four calls of five are rejected sends about twice what the service takes.
func ExampleGate() {
	gate, err := limit.NewGate(limit.GateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	state := gate.Step(limit.Calls{Span: time.Second, Succeeded: 200, Rejected: 800})
	fmt.Println(state.Throttle.Reason())
	fmt.Printf("sheddable calls: %.0f %% are refused, critical ones: %.0f %%\n", 100*state.Throttle.Shed[limit.Sheddable], 100*state.Throttle.Shed[limit.Critical])

	critical := limit.WithPriority(context.Background(), limit.Critical)
	if gate.Enter(critical) == limit.Admitted {
		fmt.Println("a critical call goes")
		gate.Leave()
	}
	// Output:
	// throttled: 60 % of the calls are not sent, for of 1000 in 1s the service took 200 (K 2)
	// sheddable calls: 99 % are refused, critical ones: 0 %
	// a critical call goes
}

// A limit goes down as the latency goes up, fast when it is no longer healthy, and up again when it is used and calm.
func ExampleAdaptive() {
	adaptive, err := limit.NewAdaptive(limit.Config{Healthy: 250 * time.Millisecond, Start: 64})
	if err != nil {
		fmt.Println(err)
		return
	}
	window := func(calls int64, mean time.Duration) limit.Calls {
		return limit.Calls{Span: time.Second, Succeeded: calls, Latency: time.Duration(calls) * mean}
	}
	fmt.Println(adaptive.Step(window(1000, 20*time.Millisecond)).Reason())
	fmt.Println(adaptive.Step(window(1000, 60*time.Millisecond)).Reason())
	fmt.Println(adaptive.Step(window(1000, 400*time.Millisecond)).Reason())
	fmt.Println(adaptive.Step(window(1000, 22*time.Millisecond)).Reason())
	// Output:
	// limit 64: no queue was seen yet
	// limit 42: latency 60ms shows a queue, the baseline is 20ms
	// limit 29: latency 400ms is beyond what is healthy, or calls time out; the baseline stays at 20ms
	// limit 35: latency 22ms is near the baseline 20ms
}

// A server turns away what it has no place for, the least important calls first.
func ExampleLimiter() {
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: 250 * time.Millisecond, Max: 10}}, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range []limit.Priority{limit.Sheddable, limit.Normal, limit.Critical} {
		n := 0
		for limiter.Enter(now, p) {
			n++
		}
		fmt.Printf("%d more %v calls\n", n, p)
	}
	// Output:
	// 6 more sheddable calls
	// 2 more normal calls
	// 2 more critical calls
}
