package balance_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
//	advice a down|up|ends the agent says so
//	window a:10/0/5ms b:8/2/7ms/3   successes/failures/mean latency/in flight
//	capacity a 0.5
//	tick
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
			recorded(t, file, play(t, string(data)))
		})
	}
}

// recorded compares with a recorded outcome, or records it.
func recorded(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-recorded +now; -update records anew):\n%s", file, diff)
	}
}

// play runs a script and returns it with the outcome of now.
func play(t *testing.T, script string) string {
	var config balance.Config
	var group *balance.Group
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	start := now
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n----\n")
		for line := range strings.SplitSeq(commands, "\n") {
			fields := strings.Fields(line)
			switch {
			case strings.HasPrefix(line, "#"):
			case fields[0] == "config":
				config = parseConfig(t, fields[1:])
			case strings.HasPrefix(line, "+"):
				now = now.Add(duration(t, line[1:]))
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
			continue
		}
		fmt.Fprintf(&out, "%v", now.Sub(start))
		if group.Panic() != "" {
			fmt.Fprintf(&out, " PANIC: %s", group.Panic())
		}
		out.WriteString("\n")
		for _, s := range group.Statuses() {
			fmt.Fprintf(&out, "  %-3s %6.1f %5.1f %%  %s\n", s.Addr, s.Weight, 100*s.Share, s.Reason)
		}
		out.WriteString("\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
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
			c.MaxEjected = number(t, value)
		case "eject-for":
			c.EjectFor = duration(t, value)
		case "eject-max":
			c.EjectMax = duration(t, value)
		case "slow-start":
			c.SlowStart = duration(t, value)
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
			member := balance.Member{Addr: addr, Weight: number(t, value), Gray: 1, Suspect: suspect}
			if rollout {
				member.Gray = number(t, gray)
			}
			members = append(members, member)
		}
		return members
	case "struck":
		return balance.Struck{Addr: fields[1], Evidence: strings.Join(fields[2:], " ")}
	case "probed":
		return balance.Probed{Addr: fields[1], OK: fields[2] == "ok"}
	case "capacity":
		return balance.Capacity{Addr: fields[1], Factor: number(t, fields[2])}
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
			successes := int64(number(t, parts[0]))
			sample := balance.Sample{
				Addr: addr, Successes: successes, Failures: int64(number(t, parts[1])), LatencySum: time.Duration(successes) * duration(t, parts[2]),
			}
			if len(parts) > 3 {
				sample.InFlight = int64(number(t, parts[3]))
			}
			window = append(window, sample)
		}
		return window
	}
	t.Fatalf("command %q", fields)
	return nil
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
