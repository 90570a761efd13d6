// Package stall knows when a call has been in flight for so long that it is evidence against who was called: long before it
// times out. It is pure: time comes in.
package stall

import "time"

const (
	// Every is the pace of looks at calls in flight, while calls are made.
	Every = 15 * time.Millisecond
	// Late is how far apart two looks are if the process stood still in between: what waits may have waited for that.
	Late = 4 * Every
	// least is the least wait that is told.
	least = 30 * time.Millisecond
	// factor is how many times as long as nearly all calls take a wait must be.
	factor = 2
	// known is how many calls must have ended before anything is known.
	known = 8
)

// Wait is how long calls to one instance have been in flight of which none ended. The zero value is ready.
//
//	        a call is in flight         none ends for long
//	(none) ---------------------> waits -------------------> told
//	   ^       one ends, or none is there any more             |
//	   +--------------------- waits <--------------------------+ taken back
type Wait struct {
	since time.Time // zero: none is in flight
	ended uint64    // how many had ended then
	told  bool
}

// Verdict is what a look says.
type Verdict uint8

const (
	Nothing   Verdict = iota
	Stalled           // say that calls wait
	TakenBack         // say that they no longer do
)

// Look takes what there is now: how many calls have ended, as a number that changes with each, whether any is in flight, and
// how long one may be, 0 if that is not known. Late says that the process stood still since the last look.
func (w *Wait) Look(now time.Time, ended uint64, inFlight bool, patience time.Duration, late bool) Verdict {
	moved := ended != w.ended || !inFlight
	switch {
	case moved || late || w.since.IsZero():
		back := w.told && moved
		w.ended, w.told, w.since = ended, w.told && !moved, time.Time{}
		if inFlight {
			w.since = now
		}
		if back {
			return TakenBack
		}
	case !w.told && patience > 0 && now.Sub(w.since) >= patience:
		w.told = true
		return Stalled
	}
	return Nothing
}

// Idle reports whether there is nothing to look at as long as no call is in flight.
func (w *Wait) Idle() bool { return w.since.IsZero() && !w.told }

// For returns how long the calls that wait have been seen to.
func (w *Wait) For(now time.Time) time.Duration { return now.Sub(w.since) }

// Patience is how long a call may be in flight, given how many calls took how long: twice the bound below which all calls but
// one in 1000 lie, or one in 100 while there were fewer. Bound is the upper bound of a bucket. It is 0 while too few are known.
func Patience(histogram []int64, bound func(bucket int) time.Duration) time.Duration {
	n := sum(histogram)
	if n < known {
		return 0
	}
	above := n / 100
	if n >= enough {
		above = n / enough
	}
	i := len(histogram) - 1
	for ; i > 0; i-- {
		if above -= histogram[i]; above < 0 {
			break
		}
	}
	return max(least, factor*bound(i))
}
