package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// Load is what one caller knows at this moment about the load of one instance: its own calls in flight, ghosts of
// those that failed, and how long calls take. The zero value is an idle instance of which nothing is known. It lives as long
// as the instance does, however many Pickers come and go over it. It is 16 bytes. Loads of a service with few instances are best
// a cache line apart each, beside what else a call writes, so that processors do not wait for each other; those of one with
// many are best packed, so that they stay in the cache. All methods are safe for concurrent use; none reads a clock.
type Load struct {
	// One word, so that a pick reads all of it at once and the end of a call is one exchange: own calls in flight in the
	// high 24 bits, with a sign; ghosts in the next 16; in the low 24 the moving average of latencies in ns, as a float32
	// without its sign and its last 7 digits, 0 for none. An idle instance without ghosts is its latency alone.
	word    atomic.Int64
	strikes atomic.Uint32 // weight of the failures in a row
}

const (
	latencyBits = 24
	latencyMask = 1<<latencyBits - 1
	oneGhost    = 1 << latencyBits
	maxGhosts   = 1<<16 - 1
	oneCall     = 1 << 40
)

// wordCalls, wordGhosts and wordLatency are the parts of a word.
func wordCalls(word int64) int  { return int(word >> 40) }
func wordGhosts(word int64) int { return int(word >> latencyBits & maxGhosts) }
func wordLatency(word int64) float32 {
	return math.Float32frombits(uint32(word&latencyMask) << 7)
}

// latencyBitsOf is a latency as a word has it. Those of a longer one are more.
func latencyBitsOf(latency float32) int64 { return int64(math.Float32bits(latency) >> 7 & latencyMask) }

// Begin counts a call in and returns how many of this caller are in flight now.
func (l *Load) Begin() int { return wordCalls(l.word.Add(oneCall)) }

// End counts a call out that says nothing about the instance.
func (l *Load) End() { l.word.Add(-oneCall) }

// Succeeded counts a call out that succeeded in latency, and ends a row of failures.
func (l *Load) Succeeded(latency time.Duration) {
	word, sample := l.word.Load(), float32(max(latency, 0))
	if average := wordLatency(word); average != 0 {
		sample = average + (sample-average)*latencyGain
	}
	// If two callers collide, one sample is lost, which is cheaper than a loop.
	if !l.word.CompareAndSwap(word, word&^latencyMask|latencyBitsOf(sample)-oneCall) {
		l.word.Add(-oneCall)
	}
	if l.strikes.Load() != 0 {
		l.strikes.Store(0)
	}
}

// latencyGain is the part of a sample in the moving average: a jump shows within a few calls.
const latencyGain = 1.0 / 8

// Failed counts a call out that failed, with the weight of the failure, and returns the weight of the row of failures. The
// call goes on as a ghost: an instance that fails fast must not look idle.
func (l *Load) Failed(weight uint32) uint32 {
	l.change(func(word int64) int64 {
		if wordGhosts(word) < maxGhosts {
			word += oneGhost
		}
		return word - oneCall
	})
	return l.strikes.Add(weight)
}

// change makes the word what f makes of it.
func (l *Load) change(f func(word int64) int64) {
	for {
		if word := l.word.Load(); l.word.CompareAndSwap(word, f(word)) {
			return
		}
	}
}

// Forgive ends a row of failures.
func (l *Load) Forgive() { l.strikes.Store(0) }

// InFlight returns how many calls of this caller are in flight.
func (l *Load) InFlight() int { return wordCalls(l.word.Load()) }

// Ghosts returns how many calls count as in flight although they are over: see Failed.
func (l *Load) Ghosts() int { return wordGhosts(l.word.Load()) }

// Latency returns the moving average of the latency of calls that succeeded, 0 if there is none. It is exact to five digits.
func (l *Load) Latency() time.Duration { return time.Duration(wordLatency(l.word.Load())) }

// Age lets a tick of time pass, a few times a second. It halves the ghosts, so that a fear does not last, and,
// if no call ended since the last Age, takes a tenth off a latency above the typical one, so that one that is shunned for
// its latency is tried again.
func (l *Load) Age(ended bool, typical time.Duration) {
	if word, most := l.word.Load(), latencyBitsOf(float32(typical)); wordGhosts(word) == 0 && (ended || word&latencyMask <= most) {
		return // of most there is nothing to age: their lines stay in other processors' caches
	}
	l.change(func(word int64) int64 {
		ghosts := wordGhosts(word)
		word -= int64(ghosts-ghosts/2) * oneGhost
		if latency := wordLatency(word); !ended && latency > float32(typical) {
			word = word&^latencyMask | latencyBitsOf(max(float32(typical), latency*0.9))
		}
		return word
	})
}

// weigh returns all calls that count, and the latency.
func (l *Load) weigh() (calls, latency float32) {
	word := l.word.Load()
	return float32(wordCalls(word) + wordGhosts(word)), wordLatency(word)
}
