package flow

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "record the outcome of scripts anew")

// TestScripts plays testdata/scheduler/*.script to the scheduler and compares everything that it does with the outcome recorded
// in *.golden. A script is a flow, a line ---, and one input per line:
//
//	go | recover | crash (forget the memory, fold the history) | retry | pause | resume | cancel
//	ok STEP[ITEM] [JSON] | fail STEP[ITEM] CODE | fatal STEP[ITEM] CODE | unknown STEP[ITEM] | due STEP[ITEM]
//	settle STEP[ITEM] done|undone | wait DURATION
//	skip STEP [JSON] | abort STEP[ITEM] | again STEP[ITEM] [JSON] | back STEP: what a person does
//	choose STEP CASE | signal NAME ID [JSON] | approve STEP NAME[/ROLE] COMMENT | refuse STEP NAME REASON
//
// Several documents, with --- between them, are versions of the flow; migrate N moves to one of them.
// ok and so on take "undo " or "probe " in front. Record again with go test -run TestScripts -update, and read the diff.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/scheduler/*.script")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".script"), func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(source))
			golden := strings.TrimSuffix(path, ".script") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func scriptTools() *Tools {
	tools := NewTools()
	for _, m := range []Manifest{
		{Name: "pure", Effect: Pure},
		{Name: "keyed", Effect: Keyed, Undo: "undo"},
		{Name: "probed", Effect: Probe, Probe: "look", Undo: "undo"},
		{Name: "manual", Undo: "undo"},
		{Name: "remote", Effect: Keyed, Undo: "undo.remote", OnDevice: true},
		{Name: "look", Effect: Pure}, {Name: "undo", Effect: Keyed}, {Name: "undo.remote", Effect: Keyed, OnDevice: true},
	} {
		tools.add(m, nil)
	}
	return tools
}

// script is a play in progress.
type script struct {
	versions []*program
	t        *testing.T
	out      bytes.Buffer
	p        *program
	x        *Execution
	records  []Record
	now      time.Time
}

func playScript(t *testing.T, source string) string {
	parts := strings.Split(source, "\n---\n")
	if len(parts) < 2 {
		t.Fatal("the script has no line ---")
	}
	var versions []*program
	for i, document := range parts[:len(parts)-1] {
		p, faults := compile([]byte(document), scriptTools())
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if len(parts) > 2 {
			p.Version = i + 1
		}
		versions = append(versions, p)
	}
	p, lines := versions[0], parts[len(parts)-1]
	s := &script{t: t, p: p, versions: versions, x: newExecution(&p.Definition, "x"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	params, err := p.bind(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.play("start", func(m *machine) {
		m.emit(Event{Kind: EventStarted, Flow: p.Name, Version: 1, Params: params})
	})
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.command(line)
		}
	}
	return s.out.String()
}

func (s *script) command(line string) {
	words := strings.Fields(line)
	in := input{actor: "someone"}
	if words[0] == "undo" || words[0] == "probe" {
		in.undo, in.probe = words[0] == "undo", words[0] == "probe"
		words = words[1:]
	}
	if len(words) > 1 {
		name, item, _ := strings.Cut(strings.TrimSuffix(words[1], "]"), "[")
		in.step = name
		in.item, _ = strconv.Atoi(item)
	}
	if task := s.x.task(s.x.stepIndex(in.step), in.item); task != nil {
		in.attempt, in.at = task.Attempt, task.RetryAt
		if in.undo && task.Undo != nil {
			in.attempt, in.at = task.Undo.Attempt, task.Undo.RetryAt
		}
	}
	in.kind = map[string]inputKind{
		"go": inGo, "recover": inRecover, "retry": inRetry, "pause": inPause, "resume": inResume, "cancel": inCancel,
		"ok": inEnded, "fail": inEnded, "fatal": inEnded, "unknown": inEnded, "due": inDue, "settle": inSettle,
		"skip": inSkip, "abort": inFail, "again": inRetryStep, "back": inBack, "choose": inChoose, "migrate": inMigrate, "signal": inSignal, "approve": inApprove, "refuse": inRefuse, "says": inWaits,
	}[words[0]]
	switch words[0] {
	case "migrate":
		version, err := strconv.Atoi(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		in.step, in.program = "", s.versions[version-1]
	case "choose":
		in.name = strings.Join(words[2:], " ")
	case "signal":
		in.name, in.step, in.id = in.step, "", words[2]
		if len(words) > 3 {
			in.result.Output = json.RawMessage(strings.Join(words[3:], " "))
		}
	case "approve", "refuse":
		in.actor, in.reason = words[2], strings.Join(words[3:], " ")
		if name, role, found := strings.Cut(in.actor, "/"); found {
			in.actor, in.roles = name, []string{role}
		}
	case "says":
		in.name = strings.Join(words[2:], " ")
	case "skip", "again":
		if len(words) > 2 {
			in.result.Output = json.RawMessage(strings.Join(words[2:], " "))
		}
	case "ok":
		in.result.Output = json.RawMessage("{}")
		if len(words) > 2 {
			in.result.Output = json.RawMessage(strings.Join(words[2:], " "))
		}
	case "fail", "fatal":
		in.result.Error = &Error{Code: words[2], Message: "no", Permanent: words[0] == "fatal"}
	case "unknown":
		in.result.Error = &Error{Code: CodeTimeout, Message: "too slow", Unknown: true}
	case "settle":
		in.done = words[2] == "done"
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		fmt.Fprintf(&s.out, "> %s\n", line)
		return
	case "crash":
		x, found := refold(s.lookup, "x", s.records)
		if len(found) > 0 {
			s.t.Fatal(found)
		}
		s.x = x
		fmt.Fprintf(&s.out, "> %s\n", line)
		return
	}
	if in.kind == 0 {
		s.t.Fatalf("unknown command %q", line)
	}
	s.play(line, func(m *machine) { m.step(in) })
}

func (s *script) lookup(version int) (*Definition, error) {
	return &s.versions[version-1].Definition, nil
}

func (s *script) play(line string, do func(*machine)) {
	m := &machine{p: s.p, x: s.x, now: s.now}
	prev := s.x.Seq
	do(m)
	s.p = m.p
	fmt.Fprintf(&s.out, "> %s\n", line)
	for _, e := range m.events {
		fmt.Fprintf(&s.out, "  %s", e)
		if e.Input != nil {
			fmt.Fprintf(&s.out, " input=%s", e.Input)
		}
		if e.Output != nil {
			fmt.Fprintf(&s.out, " output=%s", e.Output)
		}
		if !e.RetryAt.IsZero() {
			fmt.Fprintf(&s.out, " retry in %s", e.RetryAt.Sub(s.now))
		}
		s.out.WriteByte('\n')
	}
	for _, a := range m.actions {
		switch a.kind {
		case actRun:
			fmt.Fprintf(&s.out, "  -> run %s as %s, key %s", a.call.Tool, a.call.ID, a.call.Key)
			if a.remote {
				fmt.Fprintf(&s.out, " on %s", a.call.Device)
			}
			if a.attach {
				s.out.WriteString(", if it is not running")
			}
			fmt.Fprintf(&s.out, ", within %s: %s\n", a.call.Timeout, a.call.Input)
		case actStop:
			fmt.Fprintf(&s.out, "  -> stop %s\n", a.call.ID)
		case actTimer:
			fmt.Fprintf(&s.out, "  -> timer in %s\n", a.at.Sub(s.now))
		}
	}
	if m.refused != nil {
		fmt.Fprintf(&s.out, "  refused: %v\n", m.refused)
	}
	for _, n := range m.notices {
		fmt.Fprintf(&s.out, "  -> notice %s %s: %s\n", n.Kind, n.Severity, n.Text)
	}
	if len(m.events) > 0 {
		s.records = append(s.records, m.transition(prev).Record)
		wake := s.x.wake()
		fmt.Fprintf(&s.out, "  = %s, woken by %s", s.x.State, wake.Kind)
		if wake.For != "" {
			fmt.Fprintf(&s.out, " (%s)", wake.For)
			if !wake.At.IsZero() {
				fmt.Fprintf(&s.out, " or in %s", wake.At.Sub(s.now))
			}
		}
		s.out.WriteByte('\n')
	}
}
