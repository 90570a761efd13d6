package stall

import "time"

const (
	// poolHalf is after how long what is known counts half: how long calls take changes.
	poolHalf = time.Minute
	// poolFor is how long one that makes no calls is remembered.
	poolFor = 10 * time.Minute
	// poolPairs bounds the callers and services that are told apart; more are not known.
	poolPairs = 10_000
	// enough is how many calls must have ended before one in a thousand is told from the rest.
	enough = 1000
	// poolBuckets is how many buckets a histogram has; what is told of more counts in the last.
	poolBuckets = 16
	// poolCalls is where the count of a bucket stops, so that no report outweighs those of the next minutes, or wraps a sum.
	poolCalls = 1 << 24
)

// Pool knows how long the calls of all processes of a device take, by caller and service, so that a process that has just
// started, or seldom calls, need not learn it from its own first calls, which are the slowest. The zero value is ready; it is
// for one goroutine.
type Pool struct {
	pairs map[pair]*past
}

type pair struct{ caller, service string }

type past struct {
	histogram []int64
	halved    time.Time
	last      time.Time
}

// Add takes how many calls took how long.
func (p *Pool) Add(now time.Time, caller, service string, histogram []int64) {
	key := pair{caller, service}
	h := p.pairs[key]
	if h == nil {
		if len(p.pairs) >= poolPairs {
			return
		}
		if p.pairs == nil {
			p.pairs = make(map[pair]*past)
		}
		h = &past{halved: now}
		p.pairs[key] = h
	}
	h.last = now
	for ; now.Sub(h.halved) >= poolHalf; h.halved = h.halved.Add(poolHalf) {
		for i := range h.histogram {
			h.histogram[i] /= 2
		}
	}
	for i, calls := range histogram {
		i = min(i, poolBuckets-1)
		if i == len(h.histogram) {
			h.histogram = append(h.histogram, 0)
		}
		h.histogram[i] += min(max(calls, 0), poolCalls-h.histogram[i])
	}
}

// Patience is that of all calls of caller to service; 0 while fewer are known than tell one in a thousand from the rest.
func (p *Pool) Patience(caller, service string, bound func(bucket int) time.Duration) time.Duration {
	h := p.pairs[pair{caller, service}]
	if h == nil || sum(h.histogram) < enough {
		return 0
	}
	return Patience(h.histogram, bound)
}

// Forget drops who has made no calls for long.
func (p *Pool) Forget(now time.Time) {
	for key, h := range p.pairs {
		if now.Sub(h.last) > poolFor {
			delete(p.pairs, key)
		}
	}
}

// Known is the patience of a process: what all processes of its device know, and what it knows itself as soon as that is as
// much, if its own calls take longer than theirs.
func Known(own []int64, pooled time.Duration, bound func(bucket int) time.Duration) time.Duration {
	if pooled > 0 && sum(own) < enough {
		return pooled
	}
	return max(pooled, Patience(own, bound))
}

func sum(histogram []int64) (n int64) {
	for _, calls := range histogram {
		n += calls
	}
	return n
}
