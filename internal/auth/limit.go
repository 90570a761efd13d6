package auth

import (
	"sync"
	"time"
)

// Limiter bounds how often something may happen per key: a bucket of burst tokens that fills at one token per every.
// It remembers the keys of the last minutes only, and at most so many: beyond that, all
// new keys share one bucket. It is safe for concurrent use.
type Limiter struct {
	burst float64
	every time.Duration
	now   func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket // guarded by mu
}

type bucket struct {
	left float64
	at   time.Time
}

// mostBuckets bounds the memory of a Limiter.
const mostBuckets = 4096

// NewLimiter returns a limiter of buckets that hold burst and get one more per every. Nil for now is time.Now.
func NewLimiter(burst int, every time.Duration, now func() time.Time) *Limiter {
	if now == nil {
		now = time.Now
	}
	return &Limiter{burst: float64(burst), every: every, now: now, buckets: make(map[string]*bucket)}
}

// Take says whether it may happen once more, and counts it.
func (l *Limiter) Take(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= mostBuckets {
			l.forget(now)
		}
		if len(l.buckets) >= mostBuckets {
			key = ""
		}
		if b = l.buckets[key]; b == nil {
			b = &bucket{left: l.burst, at: now}
			l.buckets[key] = b
		}
	}
	b.left = min(l.burst, b.left+float64(now.Sub(b.at))/float64(l.every))
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// forget drops the buckets that are full by now. The caller holds mu.
func (l *Limiter) forget(now time.Time) {
	full := time.Duration(l.burst) * l.every
	for key, b := range l.buckets {
		if now.Sub(b.at) >= full {
			delete(l.buckets, key)
		}
	}
}
