package limit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// TestScripts runs each script of testdata. A script is blocks of commands, "----" and the recorded outcome of each step.
//
//	throttle k=2 volume=40 window=10s     makes the core that is stepped
//	limit healthy=250ms min=4 start=64
//	budget share=0.1 floor=1
//	4x ok=100/20ms failed=3 late=2 rejected=5 refused=40 load=0.9 asked=10,5,5   four windows of 250 ms
//	spend 12                              takes from the budget
func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, *update, play)
}

// play runs a script and returns it with the outcome of now.
func play(t *testing.T, script string) string {
	var step func(limit.Calls) string
	var budget *limit.Budget
	at := time.Duration(0)
	return scripttest.Blocks(script, func(commands []string) string {
		var out strings.Builder
		for _, line := range commands {
			fields := strings.Fields(line)
			switch verb := fields[0]; verb {
			case "throttle":
				step = throttle(t, fields[1:])
			case "limit":
				step = adaptive(t, fields[1:])
			case "budget":
				budget, step = newBudget(t, fields[1:])
			case "spend":
				n := 0
				for range scripttest.Int(t, fields[1]) {
					if budget.Spend() {
						n++
					}
				}
				fmt.Fprintf(&out, "  %d of %s spent, %.1f left\n", n, fields[1], budget.Left())
			default:
				times := scripttest.Int(t, strings.TrimSuffix(verb, "x"))
				calls := parseCalls(t, fields[1:])
				for range times {
					at += calls.Span
					fmt.Fprintf(&out, "  %6.2fs  %s\n", at.Seconds(), step(calls))
				}
			}
		}
		return out.String()
	})
}

func throttle(t *testing.T, fields []string) func(limit.Calls) string {
	var c limit.ThrottleConfig
	for name, value := range scripttest.Settings(fields) {
		switch name {
		case "k":
			c.K = scripttest.Number(t, value)
		case "volume":
			c.MinVolume = scripttest.Int(t, value)
		case "window":
			c.Window = scripttest.Duration(t, value)
		default:
			t.Fatalf("throttle has no %q", name)
		}
	}
	core := limit.NewThrottle(c)
	return func(calls limit.Calls) string {
		s := core.Step(calls)
		line := fmt.Sprintf("drop %5.1f %%  sheddable %5.1f %%  normal %5.1f %%  critical %5.1f %%",
			100*s.Drop, 100*s.Shed[limit.Sheddable], 100*s.Shed[limit.Normal], 100*s.Shed[limit.Critical])
		return strings.TrimSpace(line + "  " + s.Reason())
	}
}

func adaptive(t *testing.T, fields []string) func(limit.Calls) string {
	var c limit.Config
	for name, value := range scripttest.Settings(fields) {
		switch name {
		case "healthy":
			c.Healthy = scripttest.Duration(t, value)
		case "min":
			c.Min = scripttest.Int(t, value)
		case "max":
			c.Max = scripttest.Int(t, value)
		case "start":
			c.Start = scripttest.Int(t, value)
		case "volume":
			c.MinVolume = scripttest.Int(t, value)
		default:
			t.Fatalf("limit has no %q", name)
		}
	}
	core, err := limit.NewAdaptive(c)
	if err != nil {
		t.Fatal(err)
	}
	return func(calls limit.Calls) string {
		s := core.Step(calls)
		return fmt.Sprintf("%-8s %s", s.Phase, s.Reason())
	}
}

func newBudget(t *testing.T, fields []string) (*limit.Budget, func(limit.Calls) string) {
	var c limit.BudgetConfig
	for name, value := range scripttest.Settings(fields) {
		switch name {
		case "share":
			c.Share = scripttest.Number(t, value)
		case "floor":
			c.Floor = scripttest.Number(t, value)
		case "bank":
			c.Bank = scripttest.Duration(t, value)
		default:
			t.Fatalf("budget has no %q", name)
		}
	}
	budget := limit.NewBudget(c)
	return budget, func(calls limit.Calls) string {
		budget.Step(calls)
		return fmt.Sprintf("%.1f left", budget.Left())
	}
}

func parseCalls(t *testing.T, fields []string) limit.Calls {
	c := limit.Calls{Span: 250 * time.Millisecond}
	for name, value := range scripttest.Settings(fields) {
		switch name {
		case "span":
			c.Span = scripttest.Duration(t, value)
		case "ok":
			n, mean, _ := strings.Cut(value, "/")
			c.Succeeded = int64(scripttest.Int(t, n))
			if mean != "" {
				c.Latency = time.Duration(c.Succeeded) * scripttest.Duration(t, mean)
			}
		case "failed":
			c.Failed = int64(scripttest.Int(t, value))
		case "late":
			c.TimedOut = int64(scripttest.Int(t, value))
		case "rejected":
			c.Rejected = int64(scripttest.Int(t, value))
		case "refused":
			c.Refused = int64(scripttest.Int(t, value))
		case "load":
			c.Load = scripttest.Number(t, value)
		case "asked": // critical, normal, sheddable
			for i, p := range []limit.Priority{limit.Critical, limit.Normal, limit.Sheddable} {
				c.Asked[p] = int64(scripttest.Int(t, strings.Split(value, ",")[i]))
			}
		default:
			t.Fatalf("calls have no %q", name)
		}
	}
	return c
}
