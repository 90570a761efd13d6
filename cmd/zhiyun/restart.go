package main

import "time"

// A server that has run for so long has started well; one that ends sooner is started again later each time, and not for ever.
const (
	ranWell     = 30 * time.Second
	mostSoon    = 8
	restartMost = 15 * time.Second
)

// restarts decides whether what has ended is started again, and when. The zero value has seen no end.
//
//	it ran well -> at once; it ended soon: at once, then after 0.5 s, 1 s, 2 s, ... up to 15 s; the eighth time in a row: no more
type restarts struct{ soon int }

// next is told how long it ran.
func (r *restarts) next(ran time.Duration) (wait time.Duration, again bool) {
	if ran >= ranWell {
		r.soon = 0
	}
	if r.soon++; r.soon >= mostSoon {
		return 0, false
	}
	if r.soon > 1 {
		wait = min(500*time.Millisecond<<(r.soon-2), restartMost)
	}
	return wait, true
}
