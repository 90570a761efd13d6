package trigger

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones are there on every machine

	"github.com/adhocore/gronx"
)

// cron is a cron expression in a time zone: five fields, minute to day of the week, read off the zone's wall clock.
//
// When the clock is put forward or back, what has a fixed hour runs once, as written: a time that is left out runs at the first moment after it,
// a time that comes twice runs the first time only. What runs in every hour, or every so many (an hour field that begins with *), runs by
// the clock as it goes: not in the hour that is left out, twice in the hour that comes twice. These are the rules of Vixie's cron.
type cron struct {
	expression string
	zone       *time.Location
	everyHour  bool
}

func parseCron(expression, zone string) (*cron, error) {
	c := &cron{expression: expression}
	if n := len(strings.Fields(expression)); n != 5 {
		return nil, fmt.Errorf("cron %q has %d fields; want five: minute, hour, day of the month, month, day of the week", expression, n)
	}
	// The parser reads what it is given leniently; the next time is what tells.
	segments, err := gronx.Segments(expression)
	if err == nil && !gronx.IsValid(expression) {
		_, err = gronx.NextTickAfter(expression, time.Unix(0, 0).UTC(), false)
	}
	if err != nil {
		return nil, fmt.Errorf("cron %q: %w", expression, err)
	}
	c.everyHour = strings.HasPrefix(segments[2], "*")
	if zone == "" {
		zone = "UTC"
	}
	if c.zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
		return nil, fmt.Errorf("zone %q is not known; give an IANA name, as Asia/Shanghai", zone)
	}
	if _, ok := c.next(time.Unix(0, 0)); !ok {
		return nil, fmt.Errorf("cron %q never comes", expression)
	}
	return c, nil
}

// maxChanges bounds how many changes of the clock next looks past: two a year, for as long as the parser looks ahead.
const maxChanges = 200

// next returns the first time after a moment, and false if there is none.
func (c *cron) next(after time.Time) (time.Time, bool) {
	low := after
	for range maxChanges {
		start, end := low.Add(1).In(c.zone).ZoneBounds()
		if !end.IsZero() && !end.After(low.Add(1)) { // Go takes each year beyond a zone's table for 365 days: on the last of a leap year it is behind its end
			end = low.Add(1).UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
		}
		_, offset := low.Add(1).In(c.zone).Zone()
		shift := time.Duration(offset) * time.Second
		from := low.UTC().Add(shift) // the wall clock, read as if it were UTC
		if !c.everyHour && !start.IsZero() {
			_, before := start.Add(-1).In(c.zone).Zone()
			if again := start.UTC().Add(time.Duration(before)*time.Second - 1); from.Before(again) {
				from = again // these times were there already, before the clock was put back
			}
		}
		wall, err := gronx.NextTickAfter(c.expression, from, false)
		if err != nil {
			return time.Time{}, false
		}
		at := wall.Add(-shift).UTC()
		if end.IsZero() || at.Before(end) {
			return at, true
		}
		_, later := end.In(c.zone).Zone()
		if !c.everyHour && wall.Before(end.UTC().Add(time.Duration(later)*time.Second)) {
			return end.UTC(), true // it is left out, since the clock is put forward
		}
		low = end.Add(-1)
	}
	return time.Time{}, false
}

// last returns the last time that is not after a moment, and later than a bound; false if there is none.
func (c *cron) last(bound, until time.Time) (last time.Time, found bool) {
	for _, back := range []time.Duration{2 * time.Hour, 48 * time.Hour, 32 * 24 * time.Hour, 366 * 24 * time.Hour, 0} {
		from := until.Add(-back)
		if back == 0 || from.Before(bound) {
			from = bound
		}
		for at, ok := c.next(from); ok && !at.After(until); at, ok = c.next(at) {
			last, found = at, true
		}
		if found || from.Equal(bound) {
			return last, found
		}
	}
	return last, found
}
