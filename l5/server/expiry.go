package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expiry decides which instances of lost owners may be removed. It is pure: what happened before is in the history that
// it is given.
//
//	lost, in grace ----grace over----> due --within the bounds--> expired
//	      ^                             |
//	      |                             +--- out of bounds ----> held (asked again as time goes on)
//	      +------------- the owner comes back -------------------+
type expiry struct {
	perMinute int
	share     float64
}

// expired is one removal of the past.
type expired struct {
	at      time.Time
	service string
}

// shareWindow is how long an expiry counts against its service's share.
const shareWindow = 10 * time.Minute

// decide returns which of due may expire now, why the others are held, and the history with it. Size is how many instances
// a service has, the due ones included.
func (e expiry) decide(now time.Time, history []expired, due []id, size func(service string) int) (expire []id, held map[id]string, after []expired) {
	minute := 0
	byService := make(map[string]int)
	for _, x := range history {
		age := max(0, now.Sub(x.at)) // one of the future is as good as one of now: a clock went back
		if age > shareWindow {
			continue
		}
		if age < time.Minute {
			minute++
		}
		byService[x.service]++
		after = append(after, x)
	}
	held = make(map[id]string)
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
			after = append(after, expired{now, name.service})
			minute++
			byService[name.service]++
			round[name.service]++
		}
	}
	return expire, held, after
}

// encodeHistory is the history as it stands in the store, for whoever decides next: by the clock on the wall as it is now,
// whatever it was then.
func encodeHistory(now time.Time, history []expired) []byte {
	var b strings.Builder
	for _, x := range history {
		fmt.Fprintf(&b, "%d %s\n", now.Add(-now.Sub(x.at)).UnixMilli(), x.service)
	}
	return []byte(b.String())
}

// decodeHistory is the reverse. Lines that it does not understand are left out.
func decodeHistory(data []byte) []expired {
	var history []expired
	for line := range strings.Lines(string(data)) {
		at, service, _ := strings.Cut(strings.TrimSpace(line), " ")
		if ms, err := strconv.ParseInt(at, 10, 64); err == nil {
			history = append(history, expired{time.UnixMilli(ms), service})
		}
	}
	return slices.Clip(history)
}

// since puts a history that was decoded on this server's own time, which no step of the clock on the wall moves. One that was
// written just now, which its last expiry is then, needs no clock for that. Of an older one the wall is all there is; what is of
// the future by that is taken for now, lest a clock that went back by hours holds expiry up for so long.
func since(now time.Time, history []expired, fresh bool) []expired {
	var last time.Time
	for _, x := range history {
		if x.at.After(last) {
			last = x.at
		}
	}
	if !fresh {
		last = now
	}
	out := make([]expired, len(history))
	for i, x := range history {
		out[i] = expired{now.Add(-max(0, last.Sub(x.at))), x.service}
	}
	return out
}
