// Package tooltest holds a tool to the contract that flows rely on: what docs/guides/tools.md says, checked with the examples of the
// tool's manifest. zhiyun tool test runs it on a folder; a Go test runs it on any tool:
//
//	func TestTool(t *testing.T) {
//		tooltest.Verify(t, tooltest.Config{Dir: "testdata/note"})
//	}
//
// Each check begins in a new world: an empty folder, whose path is in ZHIYUN_ROOT, and below which a tool makes what it
// makes. Folders of Config.Ignore are the tool's own notes. What a tool changes elsewhere is not seen.
package tooltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Config says what to check.
type Config struct {
	// Dir is the tool's folder, with its manifest. Required, unless Manifest is set.
	Dir string
	// Manifest is the tool, if it lies in no folder.
	Manifest flow.Manifest
	// Others are the tools that it names as its undo and probe, if those are others. Default: those in folders beside Dir.
	Others []flow.Manifest
	// World makes a new world: the folder that is compared, and what the tool finds in its environment. Default: a temporary folder, and no more.
	World func() (World, error)
	// Ignore are paths below the world's folder that do not count. Default: var/zhiyun.
	Ignore []string
	// Skip are names of checks not to make, each with the reason.
	Skip map[string]string
}

// World is where a check takes place.
type World struct {
	Root  string
	Env   []string
	Close func() // may be nil
}

// Outcome of a check.
type Outcome string

// Outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // it does not apply; Detail says why
)

// Finding is what came of one check.
type Finding struct {
	Check   string        `json:"check"`
	Outcome Outcome       `json:"outcome"`
	Detail  string        `json:"detail,omitempty"`
	Took    time.Duration `json:"took"`
}

// Checks are the names of all checks, in the order in which they are made.
func Checks() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}

var checks = []struct {
	name string
	run  func(*subject, context.Context) error
}{
	{"describe", (*subject).describe},
	{"lint", (*subject).lint},
	{"examples", (*subject).examples},
	{"bad input", (*subject).badInput},
	{"same key", (*subject).sameKey},
	{"undo", (*subject).undo},
	{"undo of nothing", (*subject).undoOfNothing},
	{"killed", (*subject).killed},
	{"told to end", (*subject).toldToEnd},
	{"nothing left", (*subject).nothingLeft},
	{"plan", (*subject).plan},
	{"resident", (*subject).resident},
}

// skip is the error of a check that does not apply.
type skip struct{ why string }

func (s skip) Error() string { return s.why }

// Check makes all checks and returns what came of each. The error is of the tests themselves, as of a manifest that cannot be read.
func Check(ctx context.Context, config Config) ([]Finding, error) {
	s, err := newSubject(config)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, c := range checks {
		began := time.Now()
		f := Finding{Check: c.name, Outcome: Passed}
		why, skipped := config.Skip[c.name]
		if skipped {
			f.Outcome, f.Detail = Skipped, why
		} else if err := c.run(s, ctx); err != nil {
			var not skip
			f.Outcome, f.Detail = Failed, err.Error()
			if errors.As(err, &not) {
				f.Outcome, f.Detail = Skipped, not.why
			}
		}
		f.Took = time.Since(began)
		out = append(out, f)
		if err := ctx.Err(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// T is what Verify needs of a *testing.T.
type T interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Verify makes all checks and fails the test for each that the tool fails.
func Verify(t T, config Config) {
	t.Helper()
	findings, err := Check(t.Context(), config)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, f := range findings {
		if f.Outcome == Failed {
			t.Errorf("%s: %s", f.Check, f.Detail)
		} else {
			t.Logf("%s: %s %s", f.Check, f.Outcome, f.Detail)
		}
	}
}

// subject is the tool under test.
type subject struct {
	config   Config
	manifest flow.Manifest
	tools    *flow.Tools // as an engine has them
	lax      *flow.Tools // the same without schemas: what is wrong reaches the tool
	calls    int
}

func newSubject(config Config) (*subject, error) {
	s := &subject{config: config, manifest: config.Manifest, tools: flow.NewTools(), lax: flow.NewTools()}
	if config.Dir != "" {
		var err error
		if s.manifest, err = flow.ReadManifest(config.Dir); err != nil {
			return nil, err
		}
	}
	if s.config.Ignore == nil {
		s.config.Ignore = []string{"var/zhiyun"}
	}
	others := slices.Clone(config.Others)
	for _, name := range []string{s.manifest.Undo, s.manifest.Probe} {
		known := func(m flow.Manifest) bool { return m.Name == name }
		if name == "" || name == s.manifest.Name || slices.ContainsFunc(others, known) || config.Dir == "" {
			continue
		}
		beside, err := flow.ReadManifest(filepath.Join(filepath.Dir(strings.TrimSuffix(config.Dir, "/")), name))
		if err != nil {
			return nil, fmt.Errorf("tooltest: %s names %s, which is not in a folder beside its own: %w", s.manifest.Name, name, err)
		}
		others = append(others, beside)
	}
	for _, m := range append(others, s.manifest) {
		m.Resident, m.OnDevice = nil, false
		s.tools.Exec(m)
		m.Input, m.Output = nil, nil
		s.lax.Exec(m)
	}
	if err := s.tools.Err(); err != nil {
		return nil, fmt.Errorf("tooltest: %w", err)
	}
	return s, nil
}

// world makes a new world.
func (s *subject) world() (World, error) {
	if s.config.World != nil {
		w, err := s.config.World()
		if w.Close == nil {
			w.Close = func() {}
		}
		return w, err
	}
	dir, err := os.MkdirTemp("", "zt")
	if err != nil {
		return World{}, fmt.Errorf("tooltest: %w", err)
	}
	return World{Root: dir, Close: func() { _ = os.RemoveAll(dir) }}, nil
}

// env is what the tool finds in a world.
func (w World) env() []string { return append([]string{"ZHIYUN_ROOT=" + w.Root}, w.Env...) }

// call makes a call of the tool with an input, by a key.
func (s *subject) call(key string, input []byte) flow.Call {
	s.calls++
	return flow.Call{
		ID: fmt.Sprintf("test/%d", s.calls), Execution: "test", Step: "test", Attempt: 1, Key: key, Tool: s.manifest.Name, Input: input, Timeout: s.manifest.Timeout,
	}
}

// example returns the first example, which the checks use that need one call.
func (s *subject) example() (flow.Example, error) {
	if len(s.manifest.Examples) == 0 {
		return flow.Example{}, errors.New("the manifest has no examples: without one nothing can be tried; give at least one input that works in an empty folder")
	}
	return s.manifest.Examples[0], nil
}
