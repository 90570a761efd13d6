package records_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// clock is a time that stands until it is moved.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time         { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) move(d time.Duration)   { c.ms.Add(d.Milliseconds()) }
func (c *clock) config() records.Config { return records.Config{Now: c.now, Beat: time.Hour} }

// run opens path and runs it until stop is called, or the test ends.
func run(t testing.TB, path string, config records.Config) (db *records.DB, stop func()) {
	t.Helper()
	db, err := records.Open(path, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wait.Wait()
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(stop)
	return db, stop
}

// settled makes sure that Run has begun its session.
func settled(t testing.TB, db *records.DB) {
	t.Helper()
	if err := db.Audit(t.Context(), records.Entry{Actor: "test", Action: "begin"}); err != nil {
		t.Fatal(err)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Who did what and why is its owner's alone, in a folder that others may read as well, and after a release that let them read the file.
func TestRecordsAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "records.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
	db, _ := run(t, path, records.Config{})
	settled(t, db)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v; want the database and its log", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v; want 0600", file.Name(), info.Mode(), err)
		}
	}
}

func TestOpenNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := records.Open("", records.Config{Bucket: -1, KeepAudit: -1})
	for _, word := range []string{"path", "Config.Bucket", "Config.KeepAudit"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("Open does not name %s: %v", word, err)
		}
	}
}

func TestAuditPages(t *testing.T) {
	t.Parallel()
	c := newClock()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), c.config())
	ctx := t.Context()
	for i := range 7 {
		e := records.Entry{Actor: []string{"scale", "gray"}[i%2], Action: "act", Object: fmt.Sprintf("module/m%d", i), Detail: []byte(`{"n":1}`)}
		if err := db.Audit(ctx, e); err != nil {
			t.Fatal(err)
		}
		c.move(time.Second)
	}
	page := must[[]records.Entry](t)(db.AuditLog(ctx, records.Query{Actor: "scale", Limit: 3}))
	if len(page) != 3 || page[0].Object != "module/m6" || page[2].Object != "module/m2" || string(page[0].Detail) != `{"n":1}` {
		t.Errorf("first page: %+v", page)
	}
	page = must[[]records.Entry](t)(db.AuditLog(ctx, records.Query{Actor: "scale", Limit: 3, After: page[2].ID}))
	if len(page) != 1 || page[0].Object != "module/m0" {
		t.Errorf("second page: %+v", page)
	}
	if page = must[[]records.Entry](t)(db.AuditLog(ctx, records.Query{Object: "module/"})); len(page) != 7 {
		t.Errorf("below module/: %d", len(page))
	}
	if page = must[[]records.Entry](t)(db.AuditLog(ctx, records.Query{Since: c.now().Add(-2 * time.Second)})); len(page) != 2 {
		t.Errorf("since: %d", len(page))
	}
	if err := db.Audit(ctx, records.Entry{Action: "x"}); !errors.Is(err, records.ErrInvalid) {
		t.Errorf("an entry without actor: %v", err)
	}
	if err := db.Audit(ctx, records.Entry{Actor: "a", Action: "x", Detail: []byte("{")}); !errors.Is(err, records.ErrInvalid) {
		t.Errorf("detail that is no JSON: %v", err)
	}
}

func TestOutcomesFoldByServerTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "r.db")
	db, stop := run(t, path, c.config())
	settled(t, db)
	ctx, start := t.Context(), c.now()
	add := func(db *records.DB, deltas ...records.OutcomeDelta) {
		t.Helper()
		if err := db.AddOutcomes(ctx, deltas); err != nil {
			t.Fatal(err)
		}
	}
	delta := func(caller, addr string, requests, failures int64) records.OutcomeDelta {
		return records.OutcomeDelta{Caller: caller, Service: "s", Addr: addr, Device: "d-" + addr, Requests: requests, Failures: failures,
			LatencySum: time.Duration(requests) * time.Millisecond, Histogram: []int64{requests, 0, 1}}
	}
	add(db, delta("web", "a:1", 10, 1), delta("web", "b:1", 5, 0))
	c.move(4 * time.Second)
	add(db, delta("app", "a:1", 20, 2))
	stop() // within the bucket: the sums must go on from the file
	db, _ = run(t, path, c.config())
	settled(t, db)
	add(db, delta("web", "a:1", 100, 0))
	c.move(10 * time.Second)
	add(db, delta("web", "a:1", 7, 0))

	w := must[records.Window](t)(db.Outcomes(ctx, "s", start, start.Add(time.Minute)))
	want := []records.OutcomeBucket{
		{Start: start, Service: "s", Addr: "a:1", Device: "d-a:1", Requests: 130, Failures: 3, LatencySum: 130 * time.Millisecond, Histogram: []int64{130, 0, 3}, Reports: 3},
		{Start: start, Service: "s", Addr: "b:1", Device: "d-b:1", Requests: 5, LatencySum: 5 * time.Millisecond, Histogram: []int64{5, 0, 1}, Reports: 1},
		{Start: start.Add(10 * time.Second), Service: "s", Addr: "a:1", Device: "d-a:1", Requests: 7, LatencySum: 7 * time.Millisecond, Histogram: []int64{7, 0, 1}, Reports: 1},
	}
	if diff := cmp.Diff(want, w.Buckets); diff != "" {
		t.Error(diff)
	}
	calls := must[[]records.Call](t)(db.Calls(ctx, "", start))
	if len(calls) != 2 || calls[1].Caller != "web" || calls[1].Requests != 122 || calls[0].Failures != 2 {
		t.Errorf("calls: %+v", calls)
	}
}

func TestAReportCountsOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), c.config())
	for _, seq := range []int64{1, 2, 2, 1, 3} {
		if err := db.AddReport(t.Context(), "agent-1", seq, []records.OutcomeDelta{{Service: "s", Addr: "a:1", Requests: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	w := must[records.Window](t)(db.Outcomes(t.Context(), "s", c.now(), c.now().Add(time.Second)))
	if len(w.Buckets) != 1 || w.Buckets[0].Requests != 3 || w.Buckets[0].Reports != 3 {
		t.Errorf("resent reports: %+v", w.Buckets)
	}
}

// A bucket without traffic is zero; one that no process saw wholly is a gap.
func TestGapsAreNotZero(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "r.db")
	db, stop := run(t, path, c.config())
	settled(t, db)
	start := c.now()
	add := func(db *records.DB) {
		t.Helper()
		if err := db.AddOutcomes(t.Context(), []records.OutcomeDelta{{Service: "s", Addr: "a:1", Requests: 50, Rejected: 20}}); err != nil {
			t.Fatal(err)
		}
	}
	add(db)
	c.move(25 * time.Second) // buckets 0, 1 whole, 2 begun
	add(db)
	stop()
	c.move(20 * time.Second) // down from 25 to 45: buckets 2, 3, 4
	db, _ = run(t, path, c.config())
	settled(t, db)
	c.move(7 * time.Second) // 52: 5 begun
	add(db)
	samples := must[[]records.LoadSample](t)(db.Load(t.Context(), "s", start, start.Add(time.Minute)))
	var got []string
	for _, s := range samples {
		got = append(got, fmt.Sprintf("%s %d %.1f", s.Status, s.Requests, s.Rate))
	}
	want := []string{"complete 50 5.0", "complete 0 0.0", "gap 50 5.0", "gap 0 0.0", "gap 0 0.0", "current 50 25.0"}
	// Bucket 5 begins at 50, after the process came back at 45.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w := must[records.Window](t)(db.Outcomes(t.Context(), "s", start, start.Add(50*time.Second)))
	if w.Complete || len(w.Gaps) != 1 || !w.Gaps[0].From.Equal(start.Add(20*time.Second)) || !w.Gaps[0].To.Equal(start.Add(50*time.Second)) {
		t.Errorf("gaps: %+v", w)
	}
	if w = must[records.Window](t)(db.Outcomes(t.Context(), "s", start, start.Add(20*time.Second))); !w.Complete {
		t.Errorf("two whole buckets: %+v", w)
	}
}

func TestFindingsOpenAndEnd(t *testing.T) {
	t.Parallel()
	c := newClock()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), c.config())
	ctx := t.Context()
	f := records.Finding{Device: "d1", Module: "m", Kind: "file", Subject: "etc/x", Expected: "a", Actual: "b"}
	id := must[int64](t)(db.AddFinding(ctx, f))
	c.move(time.Second)
	f.Actual = "c"
	if again := must[int64](t)(db.AddFinding(ctx, f)); again != id {
		t.Errorf("an open finding got a second ID: %d and %d", id, again)
	}
	open := must[[]records.Finding](t)(db.Findings(ctx, records.FindingQuery{Device: "d1", Open: true}))
	if len(open) != 1 || open[0].Times != 2 || open[0].Actual != "c" || open[0].LastSeen.Sub(open[0].FirstSeen) != time.Second {
		t.Errorf("open: %+v", open)
	}
	for _, how := range []string{"repaired", "ignored"} {
		if err := db.ResolveFinding(ctx, id, how, "drift"); err != nil {
			t.Fatal(err)
		}
	}
	if all := must[[]records.Finding](t)(db.Findings(ctx, records.FindingQuery{Module: "m"})); len(all) != 1 || all[0].Resolution != "repaired" {
		t.Errorf("the first end counts: %+v", all)
	}
	if next := must[int64](t)(db.AddFinding(ctx, f)); next == id {
		t.Error("a finding after the end is a new one")
	}
	if err := db.ResolveFinding(ctx, 999, "x", "y"); !errors.Is(err, records.ErrNotFound) {
		t.Errorf("no such finding: %v", err)
	}
}

func TestChangesByKey(t *testing.T) {
	t.Parallel()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), newClock().config())
	ctx := t.Context()
	change := records.Change{Key: "e1/17", Actor: "flow", Module: "m", Summary: "two devices more"}
	id := must[int64](t)(db.AddChange(ctx, change))
	if again := must[int64](t)(db.AddChange(ctx, change)); again != id {
		t.Errorf("one key, IDs %d and %d", id, again)
	}
	change.Key = ""
	must[int64](t)(db.AddChange(ctx, change))
	must[int64](t)(db.AddChange(ctx, change))
	if all := must[[]records.Change](t)(db.Changes(ctx, records.ChangeQuery{Module: "m"})); len(all) != 3 || all[2].Key != "e1/17" {
		t.Errorf("changes: %+v", all)
	}
	if removed := must[bool](t)(db.RemoveChange(ctx, "e1/17")); !removed {
		t.Error("the record of the key is not removed")
	}
}

// Many writers share commits, one failing write harms no other, and what was acknowledged is there after reopening.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "r.db")
	c := newClock()
	db, stop := run(t, path, c.config())
	var wait sync.WaitGroup
	for w := range 16 {
		wait.Go(func() {
			for i := range 20 {
				if i%5 == 4 {
					if err := db.ResolveFinding(t.Context(), 1<<40, "", ""); !errors.Is(err, records.ErrNotFound) {
						t.Errorf("failing write: %v", err)
					}
				}
				if err := db.AddOutcomes(t.Context(), []records.OutcomeDelta{{Service: "s", Addr: fmt.Sprint("a:", w%4), Requests: 1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	stop()
	db, _ = run(t, path, c.config())
	w := must[records.Window](t)(db.Outcomes(t.Context(), "s", c.now(), c.now().Add(time.Second)))
	var sum int64
	for _, b := range w.Buckets {
		sum += b.Requests
	}
	if sum != 16*20 {
		t.Errorf("acknowledged %d, found %d", 16*20, sum)
	}
}

func TestClosedSaysSo(t *testing.T) {
	t.Parallel()
	db, stop := run(t, filepath.Join(t.TempDir(), "r.db"), newClock().config())
	stop()
	if err := db.Close(); err != nil {
		t.Errorf("Close twice: %v", err)
	}
	if err := db.Audit(t.Context(), records.Entry{Actor: "a", Action: "b"}); !errors.Is(err, records.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}

func BenchmarkAddOutcomes(b *testing.B) {
	db, _ := run(b, filepath.Join(b.TempDir(), "r.db"), records.Config{})
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		deltas := []records.OutcomeDelta{{Caller: "w", Service: "s", Addr: "a:1", Requests: 9, Histogram: make([]int64, 24)}}
		for pb.Next() {
			if err := db.AddOutcomes(b.Context(), deltas); err != nil {
				b.Error(err)
			}
		}
	})
}
