package records_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// Silence is zero load only where nobody is there to report any; an audience holds until the next is noted, also over a
// restart.
func TestSilenceOfAnAudienceIsNotZero(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "r.db")
	db, stop := run(t, path, c.config())
	settled(t, db)
	start := c.now()
	note := func(watching, lost int) {
		t.Helper()
		if err := db.AddAudience(t.Context(), []records.Audience{{Service: "s", Watching: watching, Lost: lost}, {Service: "other", Watching: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	report := func() {
		t.Helper()
		if err := db.AddOutcomes(t.Context(), []records.OutcomeDelta{{Service: "s", Addr: "a:1", Requests: 100}}); err != nil {
			t.Fatal(err)
		}
	}
	c.move(12 * time.Second) // 12: nobody so far
	note(2, 0)
	report()
	c.move(8 * time.Second) // 20: heard, both there
	c.move(12 * time.Second)
	note(1, 1) // 32: one broke off, after a bucket of silence
	report()
	c.move(12 * time.Second)
	note(9, 1) // 44: one of ten is a tenth, one of two in the same bucket is not
	report()
	c.move(10 * time.Second) // 54
	report()
	c.move(7 * time.Second) // 61
	note(0, 0)
	c.move(10 * time.Second) // 71
	note(0, 3)
	stop()
	db, _ = run(t, path, c.config())
	settled(t, db)
	c.move(30 * time.Second) // 101: all had broken off, and nobody came back
	samples := must[[]records.LoadSample](t)(db.Load(t.Context(), "s", start, c.now()))
	var got []string
	for _, s := range samples {
		got = append(got, fmt.Sprintf("%s %d %v", s.Status, s.Requests, s.Partial))
	}
	want := []string{
		"complete 0 false", "complete 100 false", "silent 0 false", "complete 100 true", "complete 100 true", "complete 100 false",
		"silent 0 false", "silent 0 false", "silent 0 false", "silent 0 false", "current 0 false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	later := must[[]records.LoadSample](t)(db.Load(t.Context(), "s", start.Add(90*time.Second), start.Add(100*time.Second)))
	if len(later) != 1 || later[0].Status != records.Silent {
		t.Errorf("a window that begins after the last note: %+v", later)
	}
}

func TestAudienceFaults(t *testing.T) {
	t.Parallel()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), records.Config{})
	for _, a := range []records.Audience{{}, {Service: "s", Watching: -1}, {Service: "s", Lost: -1}} {
		if err := db.AddAudience(t.Context(), []records.Audience{a}); err == nil {
			t.Errorf("%+v was taken", a)
		}
	}
}

// A caller that is there and says that it rests makes a bucket zero, which silence does not.
func TestRestOfAnAudienceIsZero(t *testing.T) {
	t.Parallel()
	c := newClock()
	db, _ := run(t, filepath.Join(t.TempDir(), "r.db"), c.config())
	settled(t, db)
	start := c.now()
	if err := db.AddAudience(t.Context(), []records.Audience{{Service: "s", Watching: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.AddOutcomes(t.Context(), []records.OutcomeDelta{{Caller: "c", Service: "s", Addr: "a:1"}}); err != nil {
		t.Fatal(err)
	}
	c.move(21 * time.Second)
	samples := must[[]records.LoadSample](t)(db.Load(t.Context(), "s", start, c.now()))
	if len(samples) < 2 || samples[0].Status != records.Complete || samples[0].Requests != 0 || samples[1].Status != records.Silent {
		t.Errorf("rest, then silence: %+v", samples)
	}
	window := must[records.Window](t)(db.Outcomes(t.Context(), "s", start, c.now()))
	if len(window.Buckets) != 0 {
		t.Errorf("rest counts as a report on an instance: %+v", window.Buckets)
	}
}
