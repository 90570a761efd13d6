package limit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(data))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(data), got); diff != "" {
				t.Errorf("%s (-recorded +now; -update records anew):\n%s", file, diff)
			}
		})
	}
}

// play runs a script and returns it with the outcome of now.
func play(t *testing.T, script string) string {
	var step func(limit.Calls) string
	var budget *limit.Budget
	at := time.Duration(0)
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n----\n")
		for line := range strings.SplitSeq(commands, "\n") {
			fields := strings.Fields(line)
			switch verb := fields[0]; {
			case strings.HasPrefix(verb, "#"):
			case verb == "throttle":
				step = throttle(t, fields[1:])
			case verb == "limit":
				step = adaptive(t, fields[1:])
			case verb == "budget":
				budget, step = newBudget(t, fields[1:])
			case verb == "spend":
				n := 0
				for range atoi(t, fields[1]) {
					if budget.Spend() {
						n++
					}
				}
				fmt.Fprintf(&out, "  %d of %s spent, %.1f left\n", n, fields[1], budget.Left())
			default:
				times := atoi(t, strings.TrimSuffix(verb, "x"))
				calls := parseCalls(t, fields[1:])
				for range times {
					at += calls.Span
					fmt.Fprintf(&out, "  %6.2fs  %s\n", at.Seconds(), step(calls))
				}
			}
		}
		out.WriteString("\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
}

func throttle(t *testing.T, fields []string) func(limit.Calls) string {
	var c limit.ThrottleConfig
	for name, value := range settings(t, fields) {
		switch name {
		case "k":
			c.K = number(t, value)
		case "volume":
			c.MinVolume = atoi(t, value)
		case "window":
			c.Window = duration(t, value)
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
	for name, value := range settings(t, fields) {
		switch name {
		case "healthy":
			c.Healthy = duration(t, value)
		case "min":
			c.Min = atoi(t, value)
		case "max":
			c.Max = atoi(t, value)
		case "start":
			c.Start = atoi(t, value)
		case "volume":
			c.MinVolume = atoi(t, value)
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
	for name, value := range settings(t, fields) {
		switch name {
		case "share":
			c.Share = number(t, value)
		case "floor":
			c.Floor = number(t, value)
		case "bank":
			c.Bank = duration(t, value)
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
	for name, value := range settings(t, fields) {
		switch name {
		case "span":
			c.Span = duration(t, value)
		case "ok":
			n, mean, _ := strings.Cut(value, "/")
			c.Succeeded = int64(atoi(t, n))
			if mean != "" {
				c.Latency = time.Duration(c.Succeeded) * duration(t, mean)
			}
		case "failed":
			c.Failed = int64(atoi(t, value))
		case "late":
			c.TimedOut = int64(atoi(t, value))
		case "rejected":
			c.Rejected = int64(atoi(t, value))
		case "refused":
			c.Refused = int64(atoi(t, value))
		case "load":
			c.Load = number(t, value)
		case "asked": // critical, normal, sheddable
			for i, p := range []limit.Priority{limit.Critical, limit.Normal, limit.Sheddable} {
				c.Asked[p] = int64(atoi(t, strings.Split(value, ",")[i]))
			}
		default:
			t.Fatalf("calls have no %q", name)
		}
	}
	return c
}

func settings(t *testing.T, fields []string) map[string]string {
	out := map[string]string{}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			t.Fatalf("want name=value, not %q", field)
		}
		out[name] = value
	}
	return out
}

func atoi(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func number(t *testing.T, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
