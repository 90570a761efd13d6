package l5

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// A call that is in flight for far longer than others take is evidence before it times out. Each process looks at its calls
// in flight many times a second while it makes any, and tells the device's agent; several processes that wait for one
// instance, while its peers answer, are believed. Picks pay nothing for it: the counters that they keep anyway are looked at.
const (
	// stallScan is how many instances of a service a look takes in; of larger services each look takes in some, at random.
	stallScan = 512
	// stallRest is after how long without a call the looks become as rare as Config.TickEvery.
	stallRest = time.Second
)

// watch looks at calls in flight until ctx ends.
func (c *Client) watch(ctx context.Context) error {
	timer := time.NewTimer(c.config.TickEvery)
	defer timer.Stop()
	last := c.config.now()
	active := last
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		now := c.config.now()
		late := now.Sub(last) > stall.Late
		last = now
		for _, s := range *c.services.Load() {
			if s.stalls(now, late) {
				active = now
			}
		}
		if now.Sub(active) < stallRest {
			timer.Reset(stall.Every)
		} else {
			timer.Reset(c.config.TickEvery)
		}
	}
}

// stalls looks at calls in flight, and reports whether any calls are made.
func (s *service) stalls(now time.Time, late bool) (active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.total.successes + s.total.failures
	active, s.looked = calls != s.looked, calls
	patience, looked := stall.Known(s.histogram[:], s.patience, LatencyBound), 0
	for _, e := range s.endpoints {
		if looked++; looked > stallScan {
			break
		}
		w, inFlight := &e.state.wait, e.load.InFlight() > 0
		if !inFlight && w.Idle() {
			continue // most are, at most times
		}
		active = true
		switch w.Look(now, e.ended(), inFlight, patience, late) {
		case stall.Stalled:
			s.client.link.Doubt(&l5pb.Doubt{
				Service: s.name, Addr: e.addr, Kind: l5pb.Doubt_KIND_STALLED, Row: 1,
				Text: fmt.Sprintf("no answer for %v, which nearly no call takes", w.For(now).Round(time.Millisecond)),
			})
		case stall.TakenBack:
			s.client.link.Doubt(&l5pb.Doubt{Service: s.name, Addr: e.addr, Kind: l5pb.Doubt_KIND_STALLED})
		}
	}
	return active
}

// onPatience takes what the device's agent knows of how long calls take.
func (c *Client) onPatience(ms map[string]int64) {
	services := *c.services.Load()
	for service, patience := range ms {
		if s := services[service]; s != nil {
			s.mu.Lock()
			s.patience = time.Duration(max(0, patience)) * time.Millisecond
			s.mu.Unlock()
		}
	}
}

// ended is how many calls have ended, as a number that changes with each.
func (e *endpoint) ended() uint64 {
	sum := uint64(e.state.failures.Load()) + uint64(e.state.rejected.Load())
	for i := range latencyBuckets {
		sum += e.successes(i).Load()
	}
	return sum
}
