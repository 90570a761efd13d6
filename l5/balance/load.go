package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// Load is what one caller knows at this moment about the load of one instance: its own calls in flight, others' as far as
// it heard or fears, and how long calls take. It is 16 bytes of atomics, made by NewLoads, and lives as long as the instance
// does, however many Pickers come and go over it. All methods are safe for concurrent use; none reads a clock.
type Load struct {
	calls   atomic.Int64  // low half: own calls in flight; high half: ghosts
	latency atomic.Uint32 // float32 bits: moving average in ns; 0: none
	strikes atomic.Uint32 // weight of the failures in a row
}

const (
	ghost     = 1 << 32
	maxGhosts = 1 << 20
)

// NewLoads makes count loads for a service that has total instances. Those of a small service are a cache line
// apart each, so that two processors do not wait for each other; those of a large one are packed, so that they stay in
// the cache.
func NewLoads(count, total int) []*Load {
	out := make([]*Load, count)
	if total > 256 {
		packed := make([]Load, count)
		for i := range out {
			out[i] = &packed[i]
		}
		return out
	}
	type line struct {
		Load
		_ [48]byte
	}
	spread := make([]line, count)
	for i := range out {
		out[i] = &spread[i].Load
	}
	return out
}

// Begin counts a call in and returns how many of this caller are in flight now.
func (l *Load) Begin() int { return int(int32(l.calls.Add(1))) }

// End counts a call out that says nothing about the instance.
func (l *Load) End() { l.calls.Add(-1) }

// Succeeded counts a call out that succeeded in latency, and ends a row of failures.
func (l *Load) Succeeded(latency time.Duration) {
	l.calls.Add(-1)
	// The average is moved by a load and a store: if two callers collide, one sample is lost, which is cheaper than a loop.
	sample, average := float32(latency), math.Float32frombits(l.latency.Load())
	if average != 0 {
		sample = average + (sample-average)*latencyGain
	}
	if sample > 0 {
		l.latency.Store(math.Float32bits(sample))
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
	if l.calls.Add(ghost-1) > maxGhosts*ghost {
		l.calls.Add(-ghost)
	}
	return l.strikes.Add(weight)
}

// Forgive ends a row of failures.
func (l *Load) Forgive() { l.strikes.Store(0) }

// InFlight returns how many calls of this caller are in flight.
func (l *Load) InFlight() int { return int(int32(l.calls.Load())) }

// Ghosts returns how many calls count as in flight although they are not this caller's: see Reported and Failed.
func (l *Load) Ghosts() int {
	word := l.calls.Load()
	return int((word - int64(int32(word))) >> 32)
}

// Latency returns the moving average of the latency of calls that succeeded, 0 if there is none.
func (l *Load) Latency() time.Duration {
	return time.Duration(math.Float32frombits(l.latency.Load()))
}

// Reported takes what the instance, or a probe of it, said: how many calls it has in flight in all, and how long they take (0:
// not said). What is beyond this caller's own counts as ghosts until Age.
func (l *Load) Reported(inFlight int, latency time.Duration) {
	beyond := max(min(inFlight-l.InFlight(), maxGhosts), 0)
	l.calls.Add(int64(beyond-l.Ghosts()) * ghost)
	if latency > 0 {
		l.latency.Store(math.Float32bits(float32(latency)))
	}
}

// Age lets a tick of time pass: it halves the ghosts, so that a fear or an old report does not last, and, if no call
// ended since the last Age, takes a tenth off the latency, so that one that is shunned for its latency is tried again. A
// caller's tick calls it, a few times a second.
func (l *Load) Age(ended bool) {
	if ghosts := l.Ghosts(); ghosts != 0 {
		l.calls.Add(-int64(ghosts-ghosts/2) * ghost)
	}
	if !ended {
		l.latency.Store(math.Float32bits(math.Float32frombits(l.latency.Load()) * 0.9))
	}
}

// weigh returns all calls that count, and the latency.
func (l *Load) weigh() (calls, latency float32) {
	word := l.calls.Load()
	return float32(int32(word) + int32(word>>32)), math.Float32frombits(l.latency.Load())
}
