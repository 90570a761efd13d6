package drift_test

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
)

var update = flag.Bool("update", false, "record the outcomes of the scripts in testdata anew")

// TestScripts plays the scripts in testdata against the pure core. A block is a command and the lines that belong to it.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripttest.Run(t, *update, func(t *testing.T, text string) string {
		s := &script{t: t, now: noon}
		return scripttest.Blocks(text, s.run)
	})
}

// script is the state of one run.
type script struct {
	t    *testing.T
	now  time.Time
	core *drift.CoreTest
	want drift.State
}

func (s *script) run(block []string) string {
	words := strings.Fields(block[0])
	if offset, ok := strings.CutPrefix(words[0], "+"); ok {
		s.now = s.now.Add(scripttest.Duration(s.t, offset))
		words = words[1:]
	}
	var actions []drift.CoreAction
	switch words[0] {
	case "config":
		s.core = drift.NewCoreTest(s.config(words[1:]), "")
		return "ok\n"
	case "declare":
		s.want = s.state(block[1:])
		actions = s.core.Declare(s.now, s.want)
	case "see":
		// What is listed differs from what is declared; the rest is as declared.
		live := s.state(block[1:])
		var only []string
		if len(words) > 1 {
			only = words[1:]
		}
		actions = s.core.Observe(s.now, s.fill(live, block[1:]), only)
	case "repaired":
		var err error
		switch reason := strings.Join(words[3:], " "); reason {
		case "":
		case "cannot":
			err = drift.ErrCannotRepair
		default:
			err = errors.New(reason)
		}
		actions = s.core.Repaired(s.now, drift.Key{Kind: drift.Kind(words[1]), Subject: words[2]}, err)
	case "hold":
		id := scripttest.Int(s.t, words[1])
		actions = s.core.Hold(s.now, id, &drift.Hold{Subject: words[2], Reason: strings.Join(words[3:], " ")})
	case "release":
		id := scripttest.Int(s.t, words[1])
		actions = s.core.Hold(s.now, id, nil)
	case "tick":
		actions = s.core.Tick(s.now)
	default:
		s.t.Fatalf("unknown command %q", block[0])
	}
	return s.render(actions)
}

func (s *script) config(words []string) drift.Config {
	c := drift.Config{Mode: drift.Repair, Confirm: 2 * time.Second, Settle: 30 * time.Second, RepairsPerHour: 60, FlapLimit: 3, FlapWindow: time.Hour}
	for name, value := range scripttest.Settings(words) {
		switch name {
		case "mode":
			c.Mode = drift.Mode(value)
		case "flap":
			c.FlapLimit = scripttest.Int(s.t, value)
		case "perhour":
			c.RepairsPerHour = scripttest.Int(s.t, value)
		default:
			s.t.Fatalf("unknown setting %q", name)
		}
	}
	return c
}

// state reads lines such as "config etc/a aa", "process web 2", "port 80 web", "hold etc/a override 1h why",
// "order o1 config etc/a", "mode config repair", "ignore etc/a content", "exact etc".
func (s *script) state(lines []string) drift.State {
	state := drift.State{Files: map[string]drift.File{}, Modes: map[drift.Kind]drift.Mode{}}
	for _, line := range lines {
		w := append(strings.Fields(line), "", "", "", "")
		switch w[0] {
		case "file", "config", "package":
			if w[2] == "-" {
				break
			}
			state.Files[w[1]] = drift.File{Kind: drift.Kind(w[0]), Digest: w[2]}
		case "process":
			count := scripttest.Int(s.t, w[2])
			state.Processes = append(state.Processes, drift.Process{Name: w[1], Count: count})
		case "port":
			port := scripttest.Int(s.t, w[1])
			state.Ports = append(state.Ports, drift.Port{Port: port, Process: w[2]})
		case "hold":
			hold := drift.Hold{Subject: w[1], Verdict: drift.Verdict(w[2]), Reason: w[4]}
			if w[3] != "-" {
				hold.Until = s.now.Add(scripttest.Duration(s.t, w[3]))
			}
			state.Holds = append(state.Holds, hold)
		case "order":
			state.Orders = append(state.Orders, drift.Order{ID: w[1], Kind: drift.Kind(w[2]), Subject: w[3], By: "ann", Reason: "asked"})
		case "reopen":
			state.Orders = append(state.Orders, drift.Order{ID: w[1], Kind: drift.Kind(w[2]), Subject: w[3], By: "ann", Reason: "mended", Anew: true})
		case "mode":
			state.Modes[drift.Kind(w[1])] = drift.Mode(w[2])
		case "ignore":
			state.Ignore = append(state.Ignore, drift.Ignore{Subject: w[1], Field: w[2]})
		case "exact":
			state.Exact.Dirs = append(state.Exact.Dirs, w[1])
		default:
			s.t.Fatalf("unknown line %q", line)
		}
	}
	return state
}

// fill adds to live what is declared and not listed in lines. Listed processes and ports with "-" are missing.
func (s *script) fill(live drift.State, lines []string) drift.State {
	listed := make(map[string]bool)
	for _, line := range lines {
		w := strings.Fields(line)
		listed[w[1]] = true
	}
	for name, f := range s.want.Files {
		if !listed[name] {
			live.Files[name] = f
		}
	}
	live.Processes, live.Ports = nil, nil
	for _, p := range s.want.Processes {
		if !listed[p.Name] {
			for range max(p.Count, 1) {
				live.Processes = append(live.Processes, drift.Process{Name: p.Name})
			}
		}
	}
	for _, p := range s.want.Ports {
		if !listed[strconv.Itoa(p.Port)] {
			live.Ports = append(live.Ports, p)
		}
	}
	return live
}

func (s *script) render(actions []drift.CoreAction) string {
	var out strings.Builder
	for _, a := range actions {
		switch {
		case a.Tell != nil:
			fmt.Fprintf(&out, "tell %v\n", *a.Tell)
		case a.Repair != nil:
			fmt.Fprintf(&out, "repair %v\n", a.Repair.Key())
		case a.Look != nil:
			fmt.Fprintf(&out, "look %v\n", *a.Look)
		}
	}
	for _, f := range s.core.Open() {
		fmt.Fprintf(&out, "  %v is %s, %s\n", f.Key(), f.Status, f.Verdict)
	}
	if wake := s.core.Wake(); !wake.IsZero() {
		fmt.Fprintf(&out, "  wake in %v\n", wake.Sub(s.now))
	}
	if out.Len() == 0 {
		return "  nothing\n"
	}
	return out.String()
}
