package balance_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

var update = flag.Bool("update", false, "record the outcome of the scripts in testdata anew")

// TestScripts runs each script of testdata. A script is blocks of commands, "----" and the recorded outcome: the actions
// of each step, then all instances.
//
//	config max-ejected=0.5          at the start of a script
//	+1.5s                           time goes by
//	members a=100 b=50*0.1 c=100!   weights; * part by rollout; ! suspect
//	struck a connection refused
//	probed a ok|fail
//	window a:10/0/5ms b:8/2/7ms/3   successes/failures/mean latency/in flight
//	advice a down|up|ends the agent says so
//	capacity a 0.5
//	tick
func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, *update, play)
}

// recorded compares with a recorded outcome, or records it.
func recorded(t *testing.T, file, got string) {
	t.Helper()
	scripttest.Recorded(t, *update, file, got)
}

// play runs a script and returns it with the outcome of now.
func play(t *testing.T, script string) string {
	var config balance.Config
	var group *balance.Group
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	start := now
	return scripttest.Blocks(script, func(commands []string) string {
		var out strings.Builder
		for _, line := range commands {
			fields := strings.Fields(line)
			switch {
			case fields[0] == "config":
				config = parseConfig(t, fields[1:])
			case strings.HasPrefix(line, "+"):
				now = now.Add(scripttest.Duration(t, line[1:]))
			default:
				if group == nil {
					group = balance.NewGroup(config)
				}
				for _, action := range group.Step(now, parseEvent(t, fields)) {
					out.WriteString(describe(action) + "\n")
				}
			}
		}
		if group == nil {
			return ""
		}
		fmt.Fprintf(&out, "%v", now.Sub(start))
		if group.Panic() != "" {
			fmt.Fprintf(&out, " PANIC: %s", group.Panic())
		}
		out.WriteString("\n")
		for _, s := range group.Statuses() {
			fmt.Fprintf(&out, "  %-3s %6.1f %5.1f %%  %s\n", s.Addr, s.Weight, 100*s.Share, s.Reason)
		}
		return out.String()
	})
}

func describe(action balance.Action) string {
	switch a := action.(type) {
	case balance.Probe:
		return "  probe " + a.Addr
	case balance.Moved:
		return fmt.Sprintf("  %s: %v -> %v: %s", a.Addr, a.From, a.To, a.Reason)
	case balance.Reweighed:
		return "  reweighed"
	}
	return fmt.Sprintf("  %v", action)
}

func parseConfig(t *testing.T, fields []string) (c balance.Config) {
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "max-ejected":
			c.MaxEjected = scripttest.Number(t, value)
		case "eject-for":
			c.EjectFor = scripttest.Duration(t, value)
		case "eject-max":
			c.EjectMax = scripttest.Duration(t, value)
		case "slow-start":
			c.SlowStart = scripttest.Duration(t, value)
		default:
			t.Fatalf("config %q", field)
		}
	}
	return c
}

func parseEvent(t *testing.T, fields []string) balance.Event {
	switch fields[0] {
	case "members":
		var members balance.Members
		for _, field := range fields[1:] {
			addr, weight, _ := strings.Cut(field, "=")
			value, suspect := strings.CutSuffix(weight, "!")
			value, gray, rollout := strings.Cut(value, "*")
			member := balance.Member{Addr: addr, Weight: scripttest.Number(t, value), Gray: 1, Suspect: suspect}
			if rollout {
				member.Gray = scripttest.Number(t, gray)
			}
			members = append(members, member)
		}
		return members
	case "struck":
		return balance.Struck{Addr: fields[1], Evidence: strings.Join(fields[2:], " ")}
	case "probed":
		return balance.Probed{Addr: fields[1], OK: fields[2] == "ok"}
	case "capacity":
		return balance.Capacity{Addr: fields[1], Factor: scripttest.Number(t, fields[2])}
	case "advice":
		says := map[string]balance.Verdict{"ends": balance.AdviceEnds, "up": balance.AdviceUp, "down": balance.AdviceDown}
		return balance.Advice{Addr: fields[1], Says: says[fields[2]], Evidence: strings.Join(fields[3:], " ")}
	case "tick":
		return balance.Tick{}
	case "window":
		var window balance.Window
		for _, field := range fields[1:] {
			addr, rest, _ := strings.Cut(field, ":")
			parts := strings.Split(rest, "/")
			successes := int64(scripttest.Number(t, parts[0]))
			sample := balance.Sample{
				Addr: addr, Successes: successes, Failures: int64(scripttest.Number(t, parts[1])), LatencySum: time.Duration(successes) * scripttest.Duration(t, parts[2]),
			}
			if len(parts) > 3 {
				sample.InFlight = int64(scripttest.Number(t, parts[3]))
			}
			window = append(window, sample)
		}
		return window
	}
	t.Fatalf("command %q", fields)
	return nil
}
