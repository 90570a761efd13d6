package l5

import (
	"context"
	"errors"
	"math/bits"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
)

// latencyBuckets is how many buckets a latency histogram has.
const latencyBuckets = 16

// latencyShift makes 2^18 ns, about 0.26 ms, the bound of the first bucket.
const latencyShift = 18

// LatencyBound returns the upper bound of bucket i of the histograms that are reported: 2^(18+i) ns, which is
// 0.26 ms for the first. The last of the 16 has none; its bound is returned as if it had.
func LatencyBound(i int) time.Duration { return time.Duration(1) << (latencyShift + i) }

func bucket(latency time.Duration) int {
	return min(bits.Len64(uint64(max(latency, 0))>>latencyShift), latencyBuckets-1)
}

// tally counts the successes of one histogram bucket and sums their latencies, in one word, so that a success costs one atomic
// add: the count in the high 24 bits, the sum below, in units of 1/2^16 of the bucket's bound. Words only grow and wrap;
// the difference of two readings is right as long as fewer than 2^24 calls lie between them.
type tally struct{ atomic.Uint64 }

const (
	tallyShift  = 40
	tallyDigits = 16
)

func (t *tally) add(bucket int, latency time.Duration) {
	sum := uint64(latency) >> (latencyShift + bucket - tallyDigits)
	if bucket == latencyBuckets-1 {
		sum = min(sum, 1<<(tallyDigits+4)) // the last bucket has no bound; 2,300 s are enough
	}
	t.Add(1<<tallyShift + sum)
}

// split returns the calls and the sum of latencies of a difference of two readings.
func split(bucket int, difference uint64) (calls int64, sum time.Duration) {
	return int64(difference >> tallyShift), time.Duration(difference&(1<<tallyShift-1)) << (latencyShift + bucket - tallyDigits)
}

// quickBuckets are the first buckets, of calls below 2^23 ns, which is 8 ms.
const quickBuckets = 6

// endpoint is one instance with what this process knows about it. It is shared by all snapshots that hold the
// instance. Counters only grow and wrap; readers take differences. It is three cache lines long: all that a pick reads, and a
// call writes that takes less than 8 ms and succeeds, is the first of them, so that two processors that call one instance wait
// for each other once a call. Of a large service, where they seldom meet, loads lie packed elsewhere: so picks find them in
// the cache.
type endpoint struct {
	near  balance.Load
	quick [quickBuckets]tally

	load    *balance.Load // near, or one that is packed
	addr    string
	service *service
	state   *endpointState
	limit   atomic.Uint32 // weight of failures in a row at which the instance is struck out
	ceiling atomic.Uint32 // of calls in flight; heeded where picks are bounded
	slow    [latencyBuckets - quickBuckets]tally
}

// packFrom is how many instances a large service has.
const packFrom = 256

// successes returns the tally of a bucket.
func (e *endpoint) successes(bucket int) *tally {
	if bucket < quickBuckets {
		return &e.quick[bucket]
	}
	return &e.slow[bucket-quickBuckets]
}

// endpointState is what neither a pick touches nor a success.
type endpointState struct {
	instance atomic.Pointer[Instance] // what the name service says
	failures atomic.Uint32
	rejected atomic.Uint32
	seen     counts     // guarded by the service's mu; up to here in what follows
	window   counted    // guarded by the service's mu; for the next balance.Window
	report   counted    // guarded by the service's mu; for the next report
	total    counted    // guarded by the service's mu
	wait     stall.Wait // guarded by the service's mu
	guard    endpointGuard
	history  []Event // guarded by the service's mu; the last changes of health
	// histogram belongs to report.
	histogram [latencyBuckets]int64 // guarded by the service's mu
}

func newEndpoint(s *service, addr string) *endpoint {
	e := &endpoint{addr: addr, service: s, state: &endpointState{}}
	e.load = &e.near
	e.bound(&s.client.config)
	return e
}

// counts is a reading of an endpoint's counters.
type counts struct {
	failures, rejected uint32
	successes          [latencyBuckets]uint64
}

// counted is what came between two readings, or the sum of many.
type counted struct {
	failures, rejected int64
	successes          int64
	latencySum         time.Duration
}

func (c *counted) add(d counted) {
	c.failures += d.failures
	c.rejected += d.rejected
	c.successes += d.successes
	c.latencySum += d.latencySum
}

// collect brings the state up to the counters, which must happen before 2^24 calls of a bucket went by: each tick does it.
// Callers hold the service's mu.
func (e *endpoint) collect() {
	read := counts{failures: e.state.failures.Load(), rejected: e.state.rejected.Load()}
	for i := range read.successes {
		read.successes[i] = e.successes(i).Load()
	}
	seen := &e.state.seen
	if read == *seen {
		return
	}
	d := counted{failures: int64(read.failures - seen.failures), rejected: int64(read.rejected - seen.rejected)}
	for i := range read.successes {
		calls, sum := split(i, read.successes[i]-seen.successes[i])
		e.state.histogram[i] += calls
		e.service.guard.histogram[i] += calls
		e.service.histogram[i] += calls
		d.successes += calls
		d.latencySum += sum
	}
	*seen = read
	e.state.window.add(d)
	e.state.report.add(d)
	e.state.total.add(d)
	e.state.guard.counted.add(d)
	e.service.total.add(d)
}

// take returns what was summed up and starts anew.
func take(c *counted) counted {
	out := *c
	*c = counted{}
	return out
}

// done counts an outcome. A success costs an atomic exchange and an atomic add, in one cache line.
func (e *endpoint) done(load *balance.Load, o Outcome) {
	if o.Load.Utilization > 0 {
		e.state.guard.heard(o.Load)
	}
	if o.Err != nil {
		e.failed(load, o.Err)
		return
	}
	latency := max(o.Latency, 0)
	load.Succeeded(latency)
	i := bucket(latency)
	e.successes(i).add(i, latency)
}

// failed counts a call that did not succeed.
func (e *endpoint) failed(load *balance.Load, err error) {
	if errors.Is(err, ErrOverloaded) {
		load.End()
		e.state.rejected.Add(1)
		return
	}
	if errors.Is(err, context.Canceled) {
		load.End()
		return // the caller gave up of its own accord: that says nothing about the instance
	}
	if timedOut(err) {
		e.state.guard.timedOut.Add(1)
	}
	e.state.failures.Add(1)
	strike := e.service.client.config.strike(err)
	limit := e.limit.Load()
	after := load.Failed(strike)
	struck := after >= limit && after-strike < limit
	if struck {
		e.service.struck(e, err)
	}
	e.service.client.doubt(e, err, after/strike, struck)
}

// unreachable reports whether err says that nobody listens: then the next call fails the same way.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
