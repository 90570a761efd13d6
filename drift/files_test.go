package drift_test

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/drifttest"
)

func collect(t testing.TB, c drift.Collector, want drift.State) drift.State {
	t.Helper()
	live, err := c.Collect(context.Background(), want, nil)
	if err != nil {
		t.Fatal(err)
	}
	return live
}

// differences renders findings without digests, for tables.
func differences(findings []drift.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, f.Subject+": "+strings.Join(f.Fields, ","))
	}
	return out
}

func TestFilesFindEveryDifference(t *testing.T) {
	t.Parallel()
	const content = "declared"
	declared := drift.File{Digest: drift.Digest([]byte(content)), Mode: 0o644}
	tests := map[string]struct {
		want  drift.File
		spoil func(t *testing.T, root string)
		found []string
	}{
		"as declared":  {declared, func(*testing.T, string) {}, nil},
		"content":      {declared, func(t *testing.T, root string) { write(t, root, "etc/a", "tampered") }, []string{"etc/a: content"}},
		"mode":         {declared, func(t *testing.T, root string) { try(t, os.Chmod(root+"/etc/a", 0o666)) }, []string{"etc/a: mode"}},
		"both":         {declared, func(t *testing.T, root string) { write(t, root, "etc/a", ""); try(t, os.Chmod(root+"/etc/a", 0o600)) }, []string{"etc/a: content,mode"}},
		"missing":      {declared, func(t *testing.T, root string) { try(t, os.Remove(root+"/etc/a")) }, []string{"etc/a: missing"}},
		"no directory": {declared, func(t *testing.T, root string) { try(t, os.RemoveAll(root+"/etc")) }, []string{"etc/a: missing"}},
		"directory": {declared, func(t *testing.T, root string) {
			replace(t, root+"/etc/a", func(p string) error { return os.Mkdir(p, 0o755) })
		}, []string{"etc/a: type"}},
		"file above": {declared, func(t *testing.T, root string) { try(t, os.RemoveAll(root+"/etc")); write(t, root, "etc", "") }, []string{"etc/a: missing"}},
		"link outside": {declared, func(t *testing.T, root string) {
			replace(t, root+"/etc/a", func(p string) error { return os.Symlink("/etc/passwd", p) })
		}, []string{"etc/a: type"}},
		"folder leaves": {declared, func(t *testing.T, root string) {
			try(t, os.RemoveAll(root+"/etc"))
			try(t, os.Symlink("../../..", root+"/etc"))
		}, []string{"etc/a: type"}},
		"undeclared mode is not compared": {drift.File{Digest: declared.Digest},
			func(t *testing.T, root string) { try(t, os.Chmod(root+"/etc/a", 0o600)) }, nil},
		"undeclared content is not compared": {drift.File{Mode: 0o644},
			func(t *testing.T, root string) { write(t, root, "etc/a", "tampered") }, nil},
		"must be absent": {drift.File{Type: drift.Absent}, func(*testing.T, string) {}, []string{"etc/a: unexpected"}},
		"link as declared": {drift.File{Link: "b"},
			func(t *testing.T, root string) {
				replace(t, root+"/etc/a", func(p string) error { return os.Symlink("b", p) })
			}, nil},
		"link elsewhere": {drift.File{Link: "b"},
			func(t *testing.T, root string) {
				replace(t, root+"/etc/a", func(p string) error { return os.Symlink("c", p) })
			}, []string{"etc/a: target"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			write(t, root, "etc/a", content)
			test.spoil(t, root)
			want := drift.State{Files: map[string]drift.File{"etc/a": test.want}}
			if diff := cmp.Diff(test.found, differences(drift.Compare(want, collect(t, drift.Files(root), want)))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, name string, make func(string) error) {
	t.Helper()
	try(t, os.RemoveAll(name))
	try(t, make(name))
}

func TestExactDirectories(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"pkg/a/bin/x", "pkg/a/stray", "pkg/a/more/y", "pkg/other"} {
		write(t, root, name, "x")
	}
	want := drift.State{
		Files: map[string]drift.File{"pkg/a/bin/x": {Digest: drift.Digest([]byte("x"))}},
		Exact: drift.Exact{Dirs: []string{"pkg/a"}},
	}
	found := differences(drift.Compare(want, collect(t, drift.Files(root), want)))
	if diff := cmp.Diff([]string{"pkg/a/more: unexpected", "pkg/a/stray: unexpected"}, found); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// What cannot be read is neither as declared nor different: the coverage says so.
func TestUnreadableFileIsAGapNotAFinding(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	root := t.TempDir()
	write(t, root, "etc/a", "x")
	try(t, os.Chmod(root+"/etc/a", 0))
	want := drift.State{Files: map[string]drift.File{"etc/a": {Digest: drift.Digest([]byte("y"))}}}
	live := collect(t, drift.Files(root), want)
	if found := drift.Compare(want, live); len(found) != 0 {
		t.Errorf("findings: %v", found)
	}
	if gaps := live.Coverage[0].Gaps; len(gaps) == 0 || !strings.Contains(fmt.Sprint(gaps), "etc/a") {
		t.Errorf("gaps: %v", gaps)
	}
}

func TestPathsOutsideTheRootAreRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	want := drift.State{Files: map[string]drift.File{"../x": {Mode: 1}, "/etc/passwd": {Mode: 1}}}
	live := collect(t, drift.Files(root), want)
	if len(live.Files) != 0 || len(drift.Compare(want, live)) != 0 {
		t.Errorf("observed %v", live.Files)
	}
	if gaps := fmt.Sprint(live.Coverage[0].Gaps); !strings.Contains(gaps, "../x") || !strings.Contains(gaps, "/etc/passwd") {
		t.Errorf("gaps: %s", gaps)
	}
}

// mirror follows a FileCollector's events only, without any full look, as an agent would between two rescans.
type mirror struct {
	collector *drift.FileCollector
	want      drift.State

	mu      sync.Mutex
	pending map[string]bool
	all     bool
	files   map[string]drift.File
}

func newMirror(t testing.TB, root string, want drift.State) *mirror {
	m := &mirror{collector: drift.Files(root), want: want, pending: make(map[string]bool)}
	m.files = collect(t, m.collector, want).Files
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = m.collector.Watch(ctx, func(touched drift.Touched) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if touched.Why == "watching begins" {
				close(ready)
				return
			}
			m.all = m.all || touched.All
			for _, name := range touched.Subjects {
				m.pending[name] = true
			}
		})
	}()
	<-ready
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// settle looks at what was touched, and says whether anything was.
func (m *mirror) settle(t testing.TB) bool {
	m.mu.Lock()
	var only []string
	for name := range m.pending {
		only = append(only, name)
	}
	all := m.all
	m.pending, m.all = make(map[string]bool), false
	m.mu.Unlock()
	if all {
		m.files = collect(t, m.collector, m.want).Files
		return true
	}
	if len(only) == 0 {
		return false
	}
	live, err := m.collector.Collect(context.Background(), m.want, only)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range only {
		delete(m.files, name)
	}
	for name, f := range live.Files {
		m.files[name] = f
	}
	return true
}

// matches waits until the mirror agrees with a full look by a collector that remembers nothing.
func (m *mirror) matches(t testing.TB, root string) string {
	var diff string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		m.settle(t)
		truth := drift.Compare(m.want, collect(t, drift.Files(root), m.want))
		if diff = cmp.Diff(truth, drift.Compare(m.want, drift.State{Files: m.files})); diff == "" {
			return ""
		}
	}
	return diff
}

// Whatever is done to a tree, following the events alone ends at what a full look sees.
func TestEventsAgreeWithAFullLook(t *testing.T) {
	t.Parallel()
	names := []string{"a", "d/a", "d/b", "d/e/a", "d/e/b", "f/g/h/a"}
	dirs := []string{"d", "d/e", "f", "f/g", "f/g/h"}
	want := drift.State{Files: make(map[string]drift.File)}
	for _, name := range names {
		want.Files[name] = drift.File{Digest: drift.Digest([]byte("good")), Mode: 0o644}
	}
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		root := filepath.Join(base, fmt.Sprint(runs))
		try(t, os.Mkdir(root, 0o755))
		for _, name := range names {
			write(t, root, name, "good")
		}
		m := newMirror(t, root, want)
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			name := filepath.Join(root, rapid.SampledFrom(names).Draw(r, "name"))
			dir := filepath.Join(root, rapid.SampledFrom(dirs).Draw(r, "dir"))
			// Failures are part of it: what is not there cannot be moved.
			switch rapid.IntRange(0, 9).Draw(r, "what") {
			case 0, 1:
				_ = os.WriteFile(name, []byte(rapid.SampledFrom([]string{"good", "bad", ""}).Draw(r, "content")), 0o644)
			case 2:
				_ = os.Remove(name)
			case 3:
				_ = os.Chmod(name, 0o600)
			case 4:
				_ = os.RemoveAll(dir)
			case 5:
				_ = os.Rename(dir, dir+".old")
			case 6:
				_ = os.Rename(dir+".old", dir)
			case 7:
				_ = os.MkdirAll(filepath.Dir(name), 0o755)
				_ = os.WriteFile(name, []byte("good"), 0o644)
			case 8:
				_ = os.WriteFile(name+".new", []byte("good"), 0o644)
				_ = os.Rename(name+".new", name)
			case 9:
				m.settle(t)
			}
		}
		if diff := m.matches(t, root); diff != "" {
			r.Fatalf("the events end elsewhere than a full look (-full +events):\n%s", diff)
		}
	})
}

// A package manager writes aside and renames (osquery/osquery#1720), or swings a link to another version.
func TestEventsSeePackageManagers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "pkg/app/1/bin", "one")
	write(t, root, "pkg/app/2/bin", "two")
	try(t, os.Symlink("1", root+"/pkg/app/current"))
	want := drift.State{Files: map[string]drift.File{
		"pkg/app/current":     {Link: "1"},
		"pkg/app/current/bin": {Digest: drift.Digest([]byte("one"))},
	}}
	m := newMirror(t, root, want)

	write(t, root, "pkg/app/1/bin.dpkg-new", "three")
	try(t, os.Rename(root+"/pkg/app/1/bin.dpkg-new", root+"/pkg/app/1/bin"))
	m.expect(t, "pkg/app/current/bin: content")

	try(t, os.Symlink("2", root+"/pkg/app/next"))
	try(t, os.Rename(root+"/pkg/app/next", root+"/pkg/app/current"))
	m.expect(t, "pkg/app/current: target", "pkg/app/current/bin: content")

	write(t, root, "pkg/app/2/bin", "one") // behind the new link
	m.expect(t, "pkg/app/current: target")
}

func (m *mirror) expect(t *testing.T, want ...string) {
	t.Helper()
	var diff string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		m.settle(t)
		if diff = cmp.Diff(want, differences(drift.Compare(m.want, drift.State{Files: m.files}))); diff == "" {
			return
		}
	}
	t.Errorf("following events (-want +got):\n%s", diff)
}

// A burst of many changes: whatever the kernel drops, the agent ends at the truth, and says nothing false.
func TestBurstEndsExact(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const files = 2000
	want := drift.State{Files: make(map[string]drift.File)}
	for i := range files {
		name := fmt.Sprintf("d%d/f%d", i%20, i)
		write(t, root, name, "good")
		want.Files[name] = drift.File{Digest: drift.Digest([]byte("good"))}
	}
	reports := drifttest.NewReports()
	run(t, drift.Config{Device: "d1", Desired: drift.Fixed(want), Collectors: []drift.Collector{drift.Files(root)},
		Reporter: reports, MaxFindings: files})
	reports.Wait(t, "events on", func(r drift.Report) bool { return len(r.Coverage) == 1 && r.Coverage[0].Events })
	for round := range 5 {
		for name := range want.Files {
			content := "bad"
			if round == 4 && path.Base(name) < "f15" {
				content = "good"
			}
			try(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
		}
	}
	truth := len(drift.Compare(want, collect(t, drift.Files(root), want)))
	reports.Wait(t, fmt.Sprintf("%d findings", truth), func(r drift.Report) bool { return len(r.Findings)+r.More == truth && truth > 0 })
}

// Events that the kernel drops are noticed, stated, and made good by looking again.
func TestOverflowEndsExact(t *testing.T) {
	t.Parallel()
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skipf("no inotify here: %v", err)
	}
	var queue int
	if _, err := fmt.Sscan(string(limit), &queue); err != nil || queue > 100_000 {
		t.Skipf("the kernel queues %s events: more than this test makes", limit)
	}
	root := t.TempDir()
	want := drift.State{Files: make(map[string]drift.File)}
	for _, name := range []string{"a", "b", "c"} {
		write(t, root, name, "good")
		want.Files[name] = drift.File{Digest: drift.Digest([]byte("good"))}
	}
	collector := drift.Files(root)
	collect(t, collector, want)
	begun, stalled, lost := make(chan struct{}), make(chan struct{}), make(chan drift.Touched, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var once sync.Once
	go func() {
		done <- collector.Watch(ctx, func(touched drift.Touched) {
			switch {
			case touched.Why == "watching begins":
				close(begun)
			case touched.All:
				once.Do(func() { lost <- touched })
			default:
				<-stalled
			}
		})
	}()
	<-begun
	// The reader takes some thousands before it stalls, so make twice as many; the files alternate, since the kernel
	// merges events that are alike.
	for i := range 2 * queue {
		name := []string{"a", "b"}[i%2]
		try(t, os.WriteFile(filepath.Join(root, name), []byte("bad"), 0o644))
	}
	write(t, root, "c", "bad") // its event is the one that is lost
	close(stalled)
	select {
	case touched := <-lost:
		if !strings.Contains(touched.Why, "overflow") {
			t.Errorf("touched: %+v", touched)
		}
	case <-time.After(time.Minute):
		t.Fatal("the overflow was not noticed within 20s")
	}
	live := collect(t, collector, want)
	if diff := cmp.Diff([]string{"a: content", "b: content", "c: content"}, differences(drift.Compare(want, live))); diff != "" {
		t.Errorf("after looking again (-want +got):\n%s", diff)
	}
	if gaps := fmt.Sprint(live.Coverage[0].Gaps); !strings.Contains(gaps, "overflowed") {
		t.Errorf("the coverage does not tell of the loss: %s", gaps)
	}
	cancel()
	try(t, <-done)
}
