package server

import (
	"fmt"
	"slices"
	"time"
)

// expiry decides which instances of lost owners may be removed. It is pure: what happened before is in history.
//
//	lost, in grace ----grace over----> due --within the bounds--> expired
//	      ^                             |
//	      |                             +--- out of bounds ----> held (asked again as time goes on)
//	      +------------- the owner comes back -------------------+
type expiry struct {
	perMinute int
	share     float64
	history   []expired // in the order of time
}

type expired struct {
	at      time.Time
	service string
}

// shareWindow is how long an expiry counts against its service's share.
const shareWindow = 10 * time.Minute

// decide returns which of due may expire now, and why the others are held. Size is how many instances a service has,
// the due ones included.
func (e *expiry) decide(now time.Time, due []id, size func(service string) int) (expire []id, held map[id]string) {
	e.history = slices.DeleteFunc(e.history, func(x expired) bool { return now.Sub(x.at) > shareWindow })
	held = make(map[id]string)
	minute := 0
	byService := make(map[string]int)
	for _, x := range e.history {
		if now.Sub(x.at) < time.Minute {
			minute++
		}
		byService[x.service]++
	}
	round := make(map[string]int) // expired in this round; size still counts them
	for _, name := range due {
		before := byService[name.service]
		left := size(name.service) - round[name.service]
		allowed := max(1, int(e.share*float64(left+before)))
		switch {
		case left <= 1:
			held[name] = "held: it is the last instance of its service"
		case before >= allowed:
			held[name] = fmt.Sprintf("held: %d of %d instances expired within %v, the bound is %.0f %%", before, left+before, shareWindow, 100*e.share)
		case minute >= e.perMinute:
			held[name] = fmt.Sprintf("held: %d instances expired within a minute, the bound is %d", minute, e.perMinute)
		default:
			expire = append(expire, name)
			e.history = append(e.history, expired{now, name.service})
			minute++
			byService[name.service]++
			round[name.service]++
		}
	}
	return expire, held
}
