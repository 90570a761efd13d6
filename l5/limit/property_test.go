package limit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// calls draws a window, sane or not.
func calls(t *rapid.T) limit.Calls {
	count := rapid.Int64Range(0, 5000)
	c := limit.Calls{
		Span:      time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "span")),
		Succeeded: count.Draw(t, "succeeded"), Failed: count.Draw(t, "failed"), TimedOut: count.Draw(t, "timed out"),
		Rejected: count.Draw(t, "rejected"), Refused: count.Draw(t, "refused"), Load: rapid.Float64Range(0, 3).Draw(t, "load"),
	}
	c.Latency = time.Duration(c.Succeeded) * time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "latency"))
	for p := range c.Asked {
		c.Asked[p] = count.Draw(t, "asked")
	}
	return c
}

// TestThrottleProperties: at most 99 of 100 calls are refused, whatever happens; those of a higher priority never more than
// those of a lower one; and nothing while more than half of what is sent is accepted.
func TestThrottleProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		throttle := limit.NewThrottle(limit.ThrottleConfig{})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := throttle.Step(calls(t))
			if s.Drop < 0 || s.Drop > 0.99 {
				t.Fatalf("%v of the calls are refused", s.Drop)
			}
			if s.Shed[limit.Critical] > s.Shed[limit.Normal] || s.Shed[limit.Normal] > s.Shed[limit.Sheddable] || s.Shed[limit.Sheddable] > 0.99 {
				t.Fatalf("refused by priority: %v", s.Shed)
			}
		}
		good := limit.Calls{Span: 250 * time.Millisecond, Succeeded: 60, Rejected: 40, Latency: time.Second}
		for range 60 {
			if throttle.Step(good).Drop == 0 {
				return
			}
		}
		t.Fatal("a service that takes 60 of 100 is throttled for ever")
	})
}

// TestAdaptiveProperties: the limit stays within its bounds and the baseline at or below the healthy bound.
func TestAdaptiveProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := limit.Config{Healthy: 200 * time.Millisecond, Min: rapid.IntRange(1, 20).Draw(t, "min"), Max: 500}
		adaptive, err := limit.NewAdaptive(config)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			s := adaptive.Step(calls(t))
			if s.Limit < config.Min || s.Limit > config.Max {
				t.Fatalf("the limit is %d", s.Limit)
			}
			if s.Baseline < 0 || s.Baseline > config.Healthy {
				t.Fatalf("the baseline is %v", s.Baseline)
			}
		}
	})
}

// TestBudgetProperties: in any run of steps no more is spent than was paid in and what lay there at first.
func TestBudgetProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		budget := limit.NewBudget(limit.BudgetConfig{})
		paid, spent := 10.0, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := calls(t)
			budget.Step(c)
			if c.Span > 0 {
				paid += c.Span.Seconds() + 0.1*float64(c.Succeeded)
			}
			for range rapid.IntRange(0, 1000).Draw(t, "wanted") {
				if budget.Spend() {
					spent++
				}
			}
			if float64(spent) > paid+0.001 || budget.Left() < 0 {
				t.Fatalf("%d spent of %v, %v left", spent, paid, budget.Left())
			}
		}
	})
}

// TestGateProperties: who enters and leaves is counted right, and a gate that refuses says how often.
func TestGateProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		gate, err := limit.NewGate(limit.GateConfig{Limit: limit.Config{Healthy: 200 * time.Millisecond, Max: 50}})
		if err != nil {
			t.Fatal(err)
		}
		inside, refused := int64(0), int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				gate.Step(calls(t))
			case 1:
				if inside > 0 {
					gate.Leave()
					inside--
				}
			default:
				p := limit.Priority(rapid.IntRange(0, 3).Draw(t, "priority"))
				if gate.EnterAs(p, rapid.Uint32().Draw(t, "random")) == limit.Admitted {
					inside++
				} else {
					refused++
				}
			}
		}
		s := gate.State()
		if s.InFlight != inside || s.Refused[limit.Throttled]+s.Refused[limit.AtLimit] != refused {
			t.Fatalf("%d in flight, refused %v; want %d and %d", s.InFlight, s.Refused, inside, refused)
		}
	})
}

// FuzzParseLoad never panics and never yields what cannot be told again.
func FuzzParseLoad(f *testing.F) {
	for _, seed := range []string{
		"", "TEXT ", "TEXT application_utilization=0.83", "TEXT cpu_utilization=0.5, rps_fractional=12", "TEXT application_utilization=NaN",
		"TEXT application_utilization=-1,rps_fractional=+Inf", "JSON {}", "TEXT named_metrics.a=1, =, ==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l := limit.ParseLoad(s)
		if !(l.Utilization >= 0) || !(l.Rate >= 0) {
			t.Fatalf("%q is %+v", s, l)
		}
		if again := limit.ParseLoad(l.String()); l.Utilization > 0.001 && l.Utilization < 1e6 && again.Utilization == 0 {
			t.Fatalf("%q is %+v, told as %q", s, l, l.String())
		}
		if c := l.Capacity(); !(c >= 0) {
			t.Fatalf("%q leaves a capacity of %v", s, c)
		}
	})
}
