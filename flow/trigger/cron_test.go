package trigger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Each schedule with the times that follow a moment, on the wall clock of its zone.
func TestCronNext(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, cron, zone, after string
		want                    []string
	}{
		{"every quarter", "*/15 * * * *", "", "2026-03-01T10:07:30Z", []string{"2026-03-01T10:15:00Z", "2026-03-01T10:30:00Z"}},
		{"strictly after", "0 9 * * *", "", "2026-03-01T09:00:00Z", []string{"2026-03-02T09:00:00Z"}},
		{"the last day of a leap year for which the zone has a rule and no table", "0 */12 * * *", "Europe/Berlin", "2040-12-30T22:00:00Z", []string{
			"2040-12-31T00:00:00+01:00", "2040-12-31T12:00:00+01:00", "2041-01-01T00:00:00+01:00", "2041-01-01T12:00:00+01:00",
		}},
		{"that day every year", "30 12 31 12 *", "Europe/Berlin", "2039-12-31T11:30:00Z", []string{"2040-12-31T12:30:00+01:00", "2041-12-31T12:30:00+01:00"}},
		{"a zone", "0 9 * * *", "Asia/Shanghai", "2026-03-01T00:00:00Z", []string{"2026-03-01T09:00:00+08:00"}},
		{"half an hour's zone", "30 5 * * *", "Asia/Kolkata", "2026-03-01T00:00:00Z", []string{"2026-03-02T05:30:00+05:30"}},
		{"leap day", "0 0 29 2 *", "", "2026-03-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		{"day of the month or of the week", "0 0 13 * 5", "", "2026-03-07T00:00:00Z", []string{"2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"}},
		{"months by name", "0 0 1 JAN,JUL *", "", "2026-03-01T00:00:00Z", []string{"2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"}},

		// Berlin puts the clock forward on 2026-03-29 from 02:00 to 03:00.
		{"left out, once, at the first moment after", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00",
			[]string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"two left out are one", "0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00",
			[]string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"the first after the gap is not doubled", "0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00",
			[]string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"every hour goes by the clock", "30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00",
			[]string{"2026-03-29T00:30:00+01:00", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"}},
		// And back on 2026-10-25 from 03:00 to 02:00.
		{"what comes twice runs the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00",
			[]string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"every hour runs in both", "30 * * * *", "Europe/Berlin", "2026-10-25T01:00:00+02:00",
			[]string{"2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"}},
		{"asked within the hour that comes again", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", []string{"2026-10-26T02:30:00+01:00"}},
		// Lord Howe Island moves by half an hour; Apia left out a whole day.
		{"half an hour left out", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30",
			[]string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"a day left out", "0 12 * * *", "Pacific/Apia", "2011-12-29T13:00:00-10:00", []string{"2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := parseCron(test.cron, test.zone)
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, test.after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for range test.want {
				next, ok := c.next(at)
				if !ok || !next.After(at) {
					t.Fatalf("after %s comes %s, %v", at, next, ok)
				}
				got = append(got, next.In(c.zone).Format(time.RFC3339))
				at = next
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCronFaults(t *testing.T) {
	t.Parallel()
	for _, test := range [][2]string{
		{"", ""}, {"* * * *", ""}, {"* * * * * *", ""}, {"@daily", ""}, {"61 * * * *", ""}, {"0 24 * * *", ""}, {"5-1 * * * *", ""}, {"*/0 * * * *", ""},
		{"0 0 30 2 *", ""}, {"x * * * *", ""}, {"* * * * *", "Mars/Olympus"}, {"* * * * *", "Local"},
	} {
		if _, err := parseCron(test[0], test[1]); err == nil {
			t.Errorf("%q in %q is taken", test[0], test[1])
		}
	}
}

// Whatever is parsed does not panic, and what follows a moment comes after it.
func FuzzCron(f *testing.F) {
	for _, seed := range []string{"*/15 * * * *", "30 2 * * *", "0 0 29 2 *", "0 9 * * MON-FRI", "0 0 L * *", "0 0 1W * *", "1/2 * * * 5#2", "0 0 13 * 5"} {
		f.Add(seed, int64(1774746000))
	}
	f.Fuzz(func(t *testing.T, expression string, seconds int64) {
		if len(expression) > 100 {
			return
		}
		c, err := parseCron(expression, "Europe/Berlin")
		if err != nil {
			return
		}
		at := time.Unix(seconds%(1<<32), 0)
		if next, ok := c.next(at); ok && !next.After(at) {
			t.Errorf("%q: after %s comes %s", expression, at, next)
		}
	})
}

func BenchmarkCronNext(b *testing.B) {
	c, err := parseCron("30 2 * * *", "Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		c.next(at)
	}
}

func compiledSchedule(t *testing.T, s Schedule) *compiled {
	t.Helper()
	c, err := Trigger{Name: "t", Flow: "f", Schedule: &s}.compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is missed and what overlaps, by policy. The schedule is every hour; it was dealt with through 00:00.
func TestDecide(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := func(h int) time.Time { return midnight.Add(time.Duration(h) * time.Hour) }
	for _, test := range []struct {
		name    string
		missed  Missed
		overlap Overlap
		now     time.Time
		running bool
		waits   time.Time
		starts  []time.Time
		said    []Outcome
		next    time.Time
		waiting time.Time
	}{
		{name: "not yet", now: hour(1).Add(-1), next: hour(1)},
		{name: "on time", now: hour(1), starts: []time.Time{hour(1)}, next: hour(2)},
		{name: "within its grace", now: hour(1).Add(59 * time.Second), starts: []time.Time{hour(1)}, next: hour(2)},
		{name: "missed, and the next on time", now: hour(3), starts: []time.Time{hour(3)}, said: []Outcome{Passed}, next: hour(4)},
		{name: "all missed: skip", now: hour(3).Add(30 * time.Minute), said: []Outcome{Passed}, next: hour(4)},
		{name: "all missed: once", missed: MissedOnce, now: hour(3).Add(30 * time.Minute), starts: []time.Time{hour(3)}, said: []Outcome{Passed}, next: hour(4)},
		{name: "one missed: once", missed: MissedOnce, now: hour(1).Add(30 * time.Minute), starts: []time.Time{hour(1)}, next: hour(2)},
		{name: "all missed: all", missed: MissedAll, now: hour(3).Add(30 * time.Minute), starts: []time.Time{hour(1), hour(2), hour(3)}, next: hour(4)},
		{name: "overlap: skip", now: hour(1), running: true, said: []Outcome{Skipped}, next: hour(2)},
		{name: "overlap: allow", overlap: OverlapAllow, now: hour(1), running: true, starts: []time.Time{hour(1)}, next: hour(2)},
		{name: "overlap: wait", overlap: OverlapWait, now: hour(1), running: true, next: hour(2), waiting: hour(1)},
		{name: "overlap: one waits already", overlap: OverlapWait, now: hour(1), running: true, waits: midnight, said: []Outcome{Skipped}, next: hour(2), waiting: midnight},
		{name: "what waited starts", overlap: OverlapWait, now: hour(1).Add(-time.Minute), waits: midnight, starts: []time.Time{midnight}, next: hour(1)},
		{name: "a year, once", missed: MissedOnce, now: hour(8760).Add(30 * time.Minute), starts: []time.Time{hour(8760)}, said: []Outcome{Passed}, next: hour(8761)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := compiledSchedule(t, Schedule{Cron: "0 * * * *", Missed: test.missed, Overlap: test.overlap})
			d := c.decide(test.now, State{Through: midnight, Waits: test.waits}, test.running)
			var said []Outcome
			for _, f := range d.firings {
				said = append(said, f.Outcome)
			}
			if diff := cmp.Diff([]any{test.starts, said, test.next, test.waiting}, []any{d.starts, said, d.next, d.state.Waits}); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.said, said); diff != "" {
				t.Error(diff)
			}
			if again := c.decide(test.now, d.state, true); len(again.starts)+len(again.firings) > 0 {
				t.Errorf("looked at once more, it does %v", again)
			}
		})
	}
}

// Of what was missed in a long time all starts at most a hundred, the last ones.
func TestDecideBoundsWhatIsMadeUp(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := compiledSchedule(t, Schedule{Cron: "* * * * *", Missed: MissedAll})
	d := c.decide(midnight.Add(48*time.Hour+30*time.Second), State{Through: midnight}, false)
	if len(d.starts) != MaxMissed+1 || !d.starts[MaxMissed].Equal(midnight.Add(48*time.Hour)) {
		t.Errorf("%d starts, the last for %s", len(d.starts), d.starts[len(d.starts)-1])
	}
}

// Jitter is the same wherever it is worked out, and within its bound.
func TestJitter(t *testing.T) {
	t.Parallel()
	c := compiledSchedule(t, Schedule{Cron: "0 * * * *", Jitter: 60e9})
	due, seen := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), map[time.Duration]bool{}
	for range 100 {
		late := c.moment(due).Sub(due)
		if late < 0 || late >= time.Minute || c.moment(due).Sub(due) != late {
			t.Fatal(late)
		}
		seen[late] = true
		due = due.Add(time.Hour)
	}
	if len(seen) < 90 {
		t.Errorf("of a hundred, %d differ", len(seen))
	}
}
