package flow

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// flowWriter writes flows at random: of all kinds of steps, within one another.
type flowWriter struct {
	r     *rand.Rand
	steps int
	b     strings.Builder
}

func randomFlow(r *rand.Rand) string {
	w := &flowWriter{r: r}
	fmt.Fprintf(&w.b, "flow: random\nparams: {p: {type: int, default: %d}}\nsteps:\n", r.IntN(10))
	w.block("  ", 0)
	return w.b.String()
}

func (w *flowWriter) block(indent string, depth int) {
	for range 1 + w.r.IntN(4-depth) {
		w.step(indent, depth)
	}
}

func (w *flowWriter) condition() string { return fmt.Sprintf("params.p > %d", w.r.IntN(10)) }

func (w *flowWriter) step(indent string, depth int) {
	name := fmt.Sprintf("s%d", w.steps)
	w.steps++
	fmt.Fprintf(&w.b, "%s- name: %s\n", indent, name)
	in := indent + "  "
	line := func(format string, args ...any) { fmt.Fprintf(&w.b, in+format+"\n", args...) }
	if w.r.IntN(8) == 0 {
		line("when: %q", w.condition())
	}
	kind := w.r.IntN(16)
	if depth >= 3 {
		kind = 6 + w.r.IntN(10)
	}
	switch kind {
	case 0, 1:
		line("if: %q", w.condition())
		line("then:")
		w.block(in+"  ", depth+1)
		if w.r.IntN(2) == 0 {
			line("else:")
			w.block(in+"  ", depth+1)
		}
	case 2:
		line("switch:")
		for i := range 1 + w.r.IntN(3) {
			fmt.Fprintf(&w.b, "%s  - when: \"params.p > %d\"\n%s    steps:\n", in, 9-3*i, in)
			w.block(in+"      ", depth+1)
		}
	case 3, 4, 5:
		line("branches:")
		for i := range 2 + w.r.IntN(2) {
			fmt.Fprintf(&w.b, "%s  b%d:\n", in, i)
			w.block(in+"    ", depth+1)
		}
	case 6:
		line("sleep: %ds", 1+w.r.IntN(5))
	case 7:
		line("signal: go")
		line("timeout: %ds", 5+w.r.IntN(10))
		w.onFailure(in, depth, 1)
	case 8:
		line("approve: {text: well, count: %d}", 1+w.r.IntN(2))
		line("timeout: %ds", 5+w.r.IntN(10))
		w.onFailure(in, depth, 1)
	default:
		least := 0
		if w.tool(line) {
			least = 3
		}
		w.onFailure(in, depth, least)
	}
}

// tool writes what a step runs, and how often.
func (w *flowWriter) tool(line func(string, ...any)) (quota bool) {
	tool := []string{"keyed", "keyed", "probed", "remote", "manual", "pure"}[w.r.IntN(6)]
	line("tool: %s", tool)
	if tool == "remote" {
		line("on: device")
	}
	if tool != "manual" {
		line("retry: {attempts: %d, backoff: 100ms}", 1+w.r.IntN(3))
	}
	switch w.r.IntN(6) {
	case 0:
		line("each: \"[1, 2, 3, 4]\"")
		line("parallel: %d", 1+w.r.IntN(3))
		if w.r.IntN(2) == 0 {
			line("batch: 2")
		}
		if w.r.IntN(2) == 0 {
			line("quota: \"%d%%\"", 25+w.r.IntN(50))
			quota = true
		}
	case 1:
		line("repeat: {until: \"index > %d\", every: 300ms, max: 3}", w.r.IntN(4))
	}
	return quota
}

// onFailure writes what follows a failure; rarely that all turns back, since little would be left to see.
func (w *flowWriter) onFailure(in string, depth, least int) {
	switch least + w.r.IntN(5-least) {
	case 1, 2:
		fmt.Fprintf(&w.b, "%son_failure: skip\n", in)
	case 3:
		fmt.Fprintf(&w.b, "%son_failure: pause\n", in)
	case 4:
		if depth < 3 {
			fmt.Fprintf(&w.b, "%son_failure:\n%s  steps:\n", in, in)
			w.block(in+"    ", depth+1)
		}
	}
}

// randomScenario is the simulation of a flow that is another one under each seed.
func randomScenario(t *testing.T, planted string) sim.Scenario {
	return func(w *sim.World) func() error {
		source := randomFlow(rand.New(rand.NewPCG(w.Rand().Uint64(), 1)))
		versions := simVersions(t, source, source+"  - {name: tail, tool: keyed, retry: {attempts: 3, backoff: 100ms}}\n")
		w.Trace("%s", source)
		return simScenario(versions, planted)(w)
	}
}

func randomConfig(seeds int) sim.Config {
	config := simConfig(seeds)
	config.Duration = 5 * time.Minute
	return config
}

// Whatever the flow: I3, I9, and that every execution ends, each effect there exactly once or undone.
func TestRandomFlows(t *testing.T) {
	t.Parallel()
	if failure := sim.Explore(randomConfig(sim.Seeds(200)), randomScenario(t, "")); failure != nil {
		t.Fatal(failure)
	}
}

func TestRandomFlowsFindPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, planted := range []string{"another key", "join early", "undo what runs", "take signals twice", "enter twice"} {
		t.Run(planted, func(t *testing.T) {
			t.Parallel()
			failure := sim.Explore(randomConfig(100), randomScenario(t, planted))
			if failure == nil {
				t.Fatal("not found within 100 seeds")
			}
			t.Logf("found after %d seeds: %v", failure.Runs, failure.Err)
		})
	}
}
