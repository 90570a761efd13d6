package drift_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/drifttest"
)

// run starts an agent and stops it when the test ends.
func run(t *testing.T, config drift.Config) *drift.Agent {
	t.Helper()
	agent, err := drift.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return agent
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorder gathers events, and lets a test wait for one.
type recorder struct {
	mu     sync.Mutex
	events []drift.Event
	more   chan struct{}
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{})} }

func (r *recorder) add(e drift.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *recorder) wait(t *testing.T, what string, fits func(drift.Event) bool) drift.Event {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.events, fits)
		more := r.more
		if i >= 0 {
			e := r.events[i]
			r.events = slices.Delete(r.events, 0, i+1)
			r.mu.Unlock()
			return e
		}
		r.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("waited a minute for %s; have %v", what, r.events)
		}
	}
}

func is(kind drift.EventKind, subject string) func(drift.Event) bool {
	return func(e drift.Event) bool { return e.Kind == kind && e.Finding.Subject == subject }
}

// What is done to a file is found as it happens: no rescan comes to help.
func TestAgentRepairsATamperedFileAtOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "etc/app.conf", "port = 80\n")
	desired := drift.State{Files: map[string]drift.File{
		"etc/app.conf": {Kind: drift.KindConfig, Digest: drift.Digest([]byte("port = 80\n")), Mode: 0o644},
	}}
	events := newRecorder()
	repairer := drifttest.Restore(root, map[string]string{"etc/app.conf": "port = 80\n"})
	reports := drifttest.NewReports()
	run(t, drift.Config{
		Device: "d1", Desired: drift.Fixed(desired), Collectors: []drift.Collector{drift.Files(root)},
		Repairer: repairer, Reporter: reports, Mode: drift.Repair, OnEvent: events.add, Rescan: time.Hour,
	})
	reports.Wait(t, "a first look with events on", func(r drift.Report) bool {
		return len(r.Coverage) == 1 && r.Coverage[0].Events && len(r.Findings) == 0
	})

	tampered := time.Now()
	write(t, root, "etc/app.conf", "port = 81\n")
	closed := events.wait(t, "the repair", is(drift.EventClosed, "etc/app.conf"))
	if closed.Finding.Status != drift.StatusRepaired || closed.Finding.Verdict != drift.Corrective {
		t.Errorf("closed as %s, %s; want repaired, corrective", closed.Finding.Status, closed.Finding.Verdict)
	}
	if got, _ := os.ReadFile(filepath.Join(root, "etc/app.conf")); string(got) != "port = 80\n" {
		t.Errorf("content after the repair: %q", got)
	}
	t.Logf("found and repaired in %v", time.Since(tampered))
}

func TestAgentHasAMissingProcessStarted(t *testing.T) {
	t.Parallel()
	lister := drifttest.NewProcesses(drift.Process{Name: "web", Exe: "bin/web", PID: 10})
	desired := drift.State{Processes: []drift.Process{{Name: "web", Exe: "bin/web"}}}
	events := newRecorder()
	repairer := drifttest.RepairFunc(func(_ context.Context, f drift.Finding) error {
		lister.Set(drift.Process{Name: f.Process.Name, Exe: f.Process.Exe, PID: 11})
		return nil
	})
	run(t, drift.Config{
		Device: "d1", Desired: drift.Fixed(desired), Collectors: []drift.Collector{drift.Processes(lister)},
		Repairer: repairer, Mode: drift.Repair, OnEvent: events.add,
		Poll: 10 * time.Millisecond, Confirm: 50 * time.Millisecond,
	})
	lister.Set()
	intent := events.wait(t, "the intent", is(drift.EventIntent, "web"))
	if intent.Finding.Actual != "not running" {
		t.Errorf("intent: actual %q, want %q", intent.Finding.Actual, "not running")
	}
	closed := events.wait(t, "the repair", is(drift.EventClosed, "web"))
	if closed.Finding.Status != drift.StatusRepaired {
		t.Errorf("closed as %s, want repaired", closed.Finding.Status)
	}
}
