package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// statistics folds what callers report into buckets of time. It is l5's Sink, gray's Outcomes and scale's Metrics: the
// same reports decide about weight and about size.
type statistics struct {
	width time.Duration
	began time.Time // what was before is unknown

	mu      sync.Mutex
	buckets map[int64]map[string]bucket // guarded by mu; by their beginning in Unix nanoseconds, and the instance's address
}

type bucket struct {
	gray.MemberOutcome
	rejected int64
}

func newStatistics(width time.Duration) *statistics {
	return &statistics{width: width, began: time.Now(), buckets: make(map[int64]map[string]bucket)}
}

// sink is the side of statistics that takes; gray's Outcomes has the same name and another form.
type sink struct{ *statistics }

// Outcomes implements server.Sink.
func (s sink) Outcomes(_ context.Context, outcomes []server.Outcome) error {
	at := time.Now().Truncate(s.width).UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[at] == nil {
		s.buckets[at] = make(map[string]bucket)
	}
	for _, o := range outcomes {
		b := s.buckets[at][o.Addr]
		b.ID = o.Addr
		b.Requests += o.Requests
		b.Failures += o.Failures
		b.Reports += o.Reports
		b.rejected += o.Rejected
		s.buckets[at][o.Addr] = b
	}
	return nil
}

// Outcomes implements gray.Outcomes: the sum of the buckets wholly inside [from, to).
func (s *statistics) Outcomes(_ context.Context, _ string, from, to time.Time) ([]gray.MemberOutcome, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := make(map[string]gray.MemberOutcome)
	for nanoseconds, members := range s.buckets {
		at := time.Unix(0, nanoseconds)
		if at.Before(from) || at.Add(s.width).After(to) {
			continue
		}
		for addr, b := range members {
			have := sum[addr]
			sum[addr] = gray.MemberOutcome{
				ID: addr, Requests: have.Requests + b.Requests, Failures: have.Failures + b.Failures, Reports: have.Reports + b.Reports,
			}
		}
	}
	return slices.Collect(maps.Values(sum)), !from.Before(s.began), nil
}

// Load implements scale.Metrics: what callers asked for, in each bucket that is over.
func (s *statistics) Load(_ context.Context, _ string, from, to time.Time) ([]scale.Sample, error) {
	if now := time.Now(); to.After(now) {
		to = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var samples []scale.Sample
	for at := from.Add(s.width - 1).Truncate(s.width); !at.Add(s.width).After(to); at = at.Add(s.width) {
		sample := scale.Sample{At: at, Valid: !at.Before(s.began)}
		for _, b := range s.buckets[at.UnixNano()] {
			sample.Rate += float64(b.Requests) / s.width.Seconds()
			sample.Lost += float64(b.Failures+b.rejected) / s.width.Seconds()
		}
		samples = append(samples, sample)
	}
	return samples, nil
}
