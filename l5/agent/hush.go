package agent

import (
	"sync"
	"time"
)

const (
	// hushFor is how long the same is not said again.
	hushFor = 10 * time.Second
	// hushKeys is how many different things are told apart; beyond, they count as one.
	hushKeys = 1024
)

// hush keeps a program that is refused again and again from filling the host's log: the same is said once in hushFor, with
// how often it happened since.
type hush struct {
	mu   sync.Mutex
	said map[string]*hushed // guarded by mu
}

type hushed struct {
	at   time.Time
	kept int // not said since
}

// say reports whether to say it now, and how often it was not said.
func (h *hush) say(now time.Time, key string) (kept int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.said[key]
	if one == nil && len(h.said) >= hushKeys {
		for key, one := range h.said {
			if now.Sub(one.at) >= hushFor && one.kept == 0 {
				delete(h.said, key)
			}
		}
		if len(h.said) >= hushKeys {
			key = ""
			one = h.said[key]
		}
	}
	if one == nil {
		if h.said == nil {
			h.said = make(map[string]*hushed)
		}
		h.said[key] = &hushed{at: now}
		return 0, true
	}
	if now.Sub(one.at) < hushFor {
		one.kept++
		return 0, false
	}
	kept, one.at, one.kept = one.kept, now, 0
	return kept, true
}
