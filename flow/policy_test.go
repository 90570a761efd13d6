package flow

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// policyPage has the table of what follows a failure; the test writes it anew with -update.
const policyPage = "../docs/guides/flow-failures.md"

// One policy for error, timeout and loss: whatever the cause, a try that is left is made first, then on_failure decides, and only what may have had its effect
// without anybody knowing is settled before by the tool's effect. The table in the documentation is what the scheduler does.
func TestFailurePolicy(t *testing.T) {
	t.Parallel()
	type cause struct {
		name, step string
		happen     func(*script)
	}
	failed := func(e Error) func(*script) {
		return func(s *script) { s.end(Result{Error: &e}) }
	}
	tool := func(name string) string {
		on := map[string]string{"remote": ", on: dev"}[name]
		return "{name: s, tool: " + name + on
	}
	crash := func(s *script) {
		s.command("crash")
		s.command("recover")
	}
	timeout := Error{Code: CodeTimeout, Message: "slow", Unknown: true}
	lost := Error{Code: CodeDeviceLost, Message: "gone", Unknown: true}
	causes := []cause{
		{"an error", tool("manual"), failed(Error{Code: "busy", Message: "no"})},
		{"an error whose code `retry.on` does not list", "{name: s, tool: manual, ON", failed(Error{Code: "busy", Message: "no"})},
		{"a permanent error", tool("manual"), failed(Error{Code: "bad", Message: "no", Permanent: true})},
		{"a timeout, tool pure or keyed", tool("keyed"), failed(timeout)},
		{"a timeout, tool probe: no effect", tool("probed"), func(s *script) {
			failed(timeout)(s)
			s.command(`probe ok s {"done": false}`)
		}},
		{"a timeout, tool probe: it had its effect", tool("probed"), func(s *script) {
			failed(timeout)(s)
			s.command(`probe ok s {"done": true}`)
		}},
		{"a timeout, tool manual", tool("manual"), failed(timeout)},
		{"the device or its worker is lost, keyed", tool("remote"), failed(lost)},
		{"the engine is lost, tool pure or keyed", tool("keyed"), crash},
		{"the engine is lost, tool probe: no effect", tool("probed"), func(s *script) {
			crash(s)
			s.command(`probe ok s {"done": false}`)
		}},
		{"the engine is lost, tool manual", tool("manual"), crash},
		{"the input cannot be worked out", "{name: s, tool: manual, with: {n: \"${1 / params.n}\"}", func(*script) {}},
		{"the output cannot be worked out", "{name: s, tool: manual, output: {n: \"${1 / params.n}\"}", func(s *script) { s.command("ok s {}") }},
		{"a signal does not come in time", "{name: s, signal: go, timeout: 1s", func(s *script) { s.command("due s") }},
		{"people refuse", "{name: s, approve: {text: well}", func(s *script) { s.command("refuse s ann no") }},
		{"iterations are used up", "{name: s, tool: manual, repeat: {until: \"output.ready\", max: 1}", func(s *script) { s.command(`ok s {"ready": false}`) }},
	}
	var page strings.Builder
	page.WriteString("| what happens | tries left | `fail` | `skip` | `pause` | `steps` |\n|---|---|---|---|---|---|\n")
	for _, c := range causes {
		leaf := strings.Contains(c.step, "tool:")
		for _, left := range []bool{true, false} {
			if !leaf && left {
				continue // there are no tries
			}
			row := fmt.Sprintf("| %s | %s |", c.name, map[bool]string{true: "yes", false: "no"}[left])
			for _, failure := range []string{"fail", "skip", "pause", "{steps: [{name: h, tool: pure}]}"} {
				row += " " + policyOutcome(t, c.step, leaf, left, failure, c.happen) + " |"
			}
			page.WriteString(row + "\n")
		}
	}
	data, err := os.ReadFile(policyPage)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(data), "<!-- table -->\n")
	_, tail, ended := strings.Cut(rest, "<!-- end -->\n")
	if !found || !ended {
		t.Fatalf("%s has no place for the table", policyPage)
	}
	got := head + "<!-- table -->\n" + page.String() + "<!-- end -->\n" + tail
	if *update {
		if err := os.WriteFile(policyPage, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(data), got); diff != "" {
		t.Error(diff)
	}
}

// end ends the attempt of step s that runs.
func (s *script) end(r Result) {
	s.play("end", func(m *machine) {
		m.step(input{kind: inEnded, step: "s", attempt: s.x.task(0, 0).Attempt, result: r})
	})
}

// policyOutcome plays one cause and says what the scheduler does about it.
func policyOutcome(t *testing.T, step string, leaf, left bool, failure string, happen func(*script)) string {
	t.Helper()
	retry := ""
	if leaf {
		retry = fmt.Sprintf(", retry: {attempts: %d, backoff: 1s}", map[bool]int{true: 3, false: 1}[left])
		if strings.Contains(step, ", ON") {
			step, retry = strings.Replace(step, ", ON", "", 1), strings.Replace(retry, "1s}", "1s, on: [other]}", 1)
		}
	}
	source := "flow: policy\nparams: {n: {type: int, default: 0}}\nsteps:\n  - " + step + retry + ", on_failure: " + failure + "}\n  - {name: last, tool: pure}\n"
	p, faults := compile([]byte(source), scriptTools())
	if len(faults) > 0 {
		t.Fatalf("%s\n%v", source, faults)
	}
	s := &script{t: t, p: p, versions: []*program{p}, x: newExecution(&p.Definition, "x"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	s.play("start", func(m *machine) {
		m.emit(Event{Kind: EventStarted, Flow: p.Name, Version: 1, Params: map[string]any{"n": int64(0)}})
	})
	s.command("go")
	happen(s)
	x := s.x
	var task Task // the last
	if n := len(x.Steps[0].Tasks); n > 0 {
		task = x.Steps[0].Tasks[n-1]
	}
	switch {
	case x.Steps[0].State == StepDone:
		return "done"
	case x.Steps[0].Handling:
		return "handler"
	case x.Steps[0].State == StepSkipped:
		return "goes on"
	case x.Target != "" || x.State == Failed:
		return "undone"
	case task.State == TaskHeld:
		return "a person"
	case task.State == TaskRetrying:
		return "tried again"
	case task.State == TaskRunning && task.Attempt == 2 && task.Tries == 1:
		return "again at once"
	}
	t.Fatalf("what became of it?\n%s\n%s", source, s.out.String())
	return ""
}
