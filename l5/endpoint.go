package l5

import (
	"context"
	"errors"
	"math/bits"
	"sync/atomic"
	"syscall"
	"time"
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

// endpoint is one instance with what this process knows about it. It is shared by all snapshots that hold the
// instance. Counters only grow and wrap; readers take differences. Its size is 128 bytes, so that the allocator puts
// it at the start of a cache line: one for what a pick reads, one for the histogram.
type endpoint struct {
	addr       string
	service    *service
	state      *endpointState
	inflight   atomic.Int64
	latencySum atomic.Int64
	strikes    atomic.Uint32 // weight of the failures in a row
	limit      atomic.Uint32 // at which the instance is struck out
	failures   atomic.Uint32
	rejected   atomic.Uint32
	histogram  [latencyBuckets]atomic.Uint32 // of successes
}

// endpointState is what a pick does not touch.
type endpointState struct {
	instance atomic.Pointer[Instance] // what the name service says
	windowed counts                   // guarded by the service's mu; up to here in windows
	reported counts                   // guarded by the service's mu; up to here in reports
}

func newEndpoint(s *service, addr string) *endpoint {
	return &endpoint{addr: addr, service: s, state: &endpointState{}}
}

// counts is a reading of an endpoint's counters.
type counts struct {
	latencySum         int64
	failures, rejected uint32
	histogram          [latencyBuckets]uint32
}

func (e *endpoint) read() counts {
	c := counts{latencySum: e.latencySum.Load(), failures: e.failures.Load(), rejected: e.rejected.Load()}
	for i := range e.histogram {
		c.histogram[i] = e.histogram[i].Load()
	}
	return c
}

// since returns what was counted from an earlier reading to this one.
func (c counts) since(before counts) (d counts, successes int64) {
	d = counts{latencySum: c.latencySum - before.latencySum, failures: c.failures - before.failures, rejected: c.rejected - before.rejected}
	for i := range c.histogram {
		d.histogram[i] = c.histogram[i] - before.histogram[i]
		successes += int64(d.histogram[i])
	}
	return d, successes
}

// done counts an outcome. A success costs two atomic adds and a load.
func (e *endpoint) done(o Outcome) {
	e.inflight.Add(-1)
	if o.Err != nil {
		e.failed(o.Err)
		return
	}
	e.histogram[bucket(o.Latency)].Add(1)
	e.latencySum.Add(int64(max(o.Latency, 0)))
	if e.strikes.Load() != 0 {
		e.strikes.Store(0)
	}
}

// failed counts a call that did not succeed.
func (e *endpoint) failed(err error) {
	if errors.Is(err, ErrOverloaded) {
		e.rejected.Add(1)
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the caller gave up of its own accord: that says nothing about the instance
	}
	e.failures.Add(1)
	strike := e.service.client.config.strike(err)
	limit := e.limit.Load()
	after := e.strikes.Add(strike)
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
