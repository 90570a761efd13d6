package flow

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// window is a time of the day on some days of the week: minutes of the wall clock of a place. Whether an instant is inside depends on what that clock shows,
// and nothing else. So where the clock is put forward over the opening, the window opens as the clock has been put forward, and is left out if all of it
// is; where the clock is put back, what it shows twice is inside twice.
type window struct {
	text     string
	days     [7]bool // on which it opens, by time.Weekday
	from, to int     // minutes of the day; to no later than from is on the next day
	zone     *time.Location
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads what a document says, and names all that is wrong with it.
func parseWindow(w *Window) (*window, error) {
	out := &window{}
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, day := range w.Days {
		at := slices.Index(weekdays, day)
		switch {
		case at < 0:
			bad("%q is no day; want %s", day, strings.Join(weekdays, ", "))
		case out.days[at]:
			bad("%s is said twice", day)
		default:
			out.days[at] = true
		}
	}
	if len(w.Days) == 0 {
		out.days = [7]bool{true, true, true, true, true, true, true}
	}
	var err error
	if out.from, err = minutes(w.From); err != nil || out.from == 24*60 {
		bad("from is %q; want a time of the day, as in 01:30", w.From)
	}
	if out.to, err = minutes(w.To); err != nil {
		bad("to is %q; want a time of the day, as in 05:00, or 24:00", w.To)
	}
	name := w.Zone
	if name == "" {
		name = "UTC"
	}
	if name == "Local" {
		bad("zone is Local; name one, as in Asia/Shanghai: engines differ in what is local")
	} else if out.zone, err = time.LoadLocation(name); err != nil {
		bad("zone %q is unknown here; want an IANA name, as in Asia/Shanghai", name)
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	days := "every day"
	if len(w.Days) > 0 {
		days = strings.Join(w.Days, ", ")
	}
	out.text = fmt.Sprintf("%s to %s %s, %s", w.From, w.To, name, days)
	return out, nil
}

// minutes reads HH:MM as minutes of the day, up to 24:00.
func minutes(text string) (int, error) {
	if text == "24:00" {
		return 24 * 60, nil
	}
	at, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of the day", text)
	}
	return at.Hour()*60 + at.Minute(), nil
}

// inside reports whether the window is open.
func (w *window) inside(at time.Time) bool {
	local := at.In(w.zone)
	minute, day := local.Hour()*60+local.Minute(), local.Weekday()
	if w.from < w.to {
		return w.days[day] && w.from <= minute && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

// opens returns the first instant, not before at, at which the window is open.
func (w *window) opens(at time.Time) time.Time {
	if w.inside(at) {
		return at
	}
	for limit := at.AddDate(1, 0, 0); at.Before(limit); {
		// As long as the clock is not put forward or back, the window opens at its first minute on one of its days.
		_, changes := at.In(w.zone).ZoneBounds()
		if !changes.IsZero() && !changes.After(at) { // Go takes each year beyond a zone's table for 365 days: on the last of a leap year it is behind its end
			changes = at.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
		}
		for day := range 9 {
			local := at.In(w.zone)
			_, offset := local.Zone()
			opening := time.Date(local.Year(), local.Month(), local.Day()+day, 0, w.from, 0, 0, time.FixedZone("", offset))
			if w.days[opening.Weekday()] && !opening.Before(at) && (changes.IsZero() || opening.Before(changes)) {
				return opening.UTC()
			}
		}
		if changes.IsZero() {
			break
		}
		if at = changes; w.inside(at) {
			return at.UTC()
		}
	}
	return at // never, since there is a day and a week has them all
}
