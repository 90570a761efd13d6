package agent

import (
	"fmt"
	"time"
)

const (
	// firstHold is how long an address whose process has ended a second time of late is waited with; it doubles with each
	// further end, up to longestHold.
	firstHold, longestHold = time.Second, 30 * time.Second
	// calm is how long an address must have served for its process's ends to be forgotten.
	calm = time.Minute
)

// vigil says of one address of the device whether somebody serves there. It is pure.
//
//	            its process ended               another runs
//	serving ------------------------> fallen ----------------> opening --+
//	 ^   ^                             ^   ^                      |      |
//	 |   |                             |   +-------- ended -------+      | the port answers
//	 |   +-- the hold is over -- settling <------------------------------+
//	 |                                                                   |
//	 +--------------------- it was the first end of late ---------------+
//
// A process that ends again and again is waited with for longer and longer, as routes that flap are (RFC 2439): callers hear
// of two changes in longestHold at most, but for the first few.
type vigil struct {
	state  footing
	reason string
	starts int       // how often its process was started, as of the last sight
	ends   int       // of late
	since  time.Time // of state
	until  time.Time // settling: when it is over
}

type footing uint8

const (
	opening footing = iota // the zero value: a process may run, its port has not answered
	serving
	fallen
	settling
)

// sight is what is seen of an address at one moment.
type sight struct {
	running bool
	starts  int    // how often the process was started
	exit    string // how it ended last
	answers bool   // somebody listens at the address; asked for in opening alone
}

// step takes what is seen, and reports whether there is news for callers: other words for the same are none.
func (v *vigil) step(now time.Time, s sight) (news bool) {
	before := v.state
	ended := !s.running || s.starts != v.starts && v.since != (time.Time{})
	v.starts = s.starts
	if ended && v.state != fallen {
		if v.state == serving && now.Sub(v.since) >= calm {
			v.ends = 0
		}
		if v.state != opening { // of one that never opened its port callers hear nothing
			v.ends++
		}
		v.enter(now, fallen)
		v.reason = "its process has ended: " + s.exit
	}
	if v.since.IsZero() {
		v.enter(now, opening)
		v.reason = "its process runs and does not listen"
	}
	if v.state == fallen && s.running {
		v.enter(now, opening)
	}
	switch {
	case v.state == opening && s.answers && v.ends <= 1:
		v.enter(now, serving)
	case v.state == opening && s.answers:
		hold := v.hold()
		v.enter(now, settling)
		v.until = now.Add(hold)
		v.reason = fmt.Sprintf("its process has ended %d times of late; waited with for %v", v.ends, hold)
	case v.state == settling && !now.Before(v.until):
		v.enter(now, serving)
	}
	if v.state == serving {
		v.reason = ""
	}
	return before != v.state && (before == serving || v.state == serving || v.state == settling)
}

func (v *vigil) hold() time.Duration {
	hold := firstHold
	for range v.ends - 2 {
		hold = min(2*hold, longestHold)
	}
	return hold
}

func (v *vigil) enter(now time.Time, to footing) { v.state, v.since = to, now }
