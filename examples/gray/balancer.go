package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// balancer spreads the calls of one service by weight and counts how they went. It is both seams of gray: Weights
// and Outcomes.
type balancer struct {
	mu      sync.Mutex
	shares  map[string]int     // guarded by mu; address, percent
	failing map[string]float64 // guarded by mu; address, share of calls that fail
	buckets []bucket           // guarded by mu; ascending
}

// bucket is what was counted within width from at on.
type bucket struct {
	at     time.Time
	counts map[string]gray.MemberOutcome
}

const width = 10 * time.Millisecond

func newBalancer() *balancer {
	return &balancer{shares: make(map[string]int), failing: make(map[string]float64)}
}

func (b *balancer) add(addr string, share int, failing float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shares[addr], b.failing[addr] = share, failing
}

// SetShares implements gray.Weights.
func (b *balancer) SetShares(_ context.Context, _ string, shares map[string]int, _ int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(b.shares, shares)
	return nil
}

// Shares implements gray.Weights.
func (b *balancer) Shares(context.Context, string) (map[string]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.shares), nil
}

// Outcomes implements gray.Outcomes: it sums the buckets that lie wholly inside the window.
func (b *balancer) Outcomes(_ context.Context, _ string, from, to time.Time) ([]gray.MemberOutcome, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := make(map[string]gray.MemberOutcome)
	for _, bucket := range b.buckets {
		if bucket.at.Before(from) || bucket.at.Add(width).After(to) {
			continue
		}
		for addr, m := range bucket.counts {
			have := sum[addr]
			sum[addr] = gray.MemberOutcome{ID: addr, Requests: have.Requests + m.Requests, Failures: have.Failures + m.Failures, Reports: have.Reports + 1}
		}
	}
	return slices.Collect(maps.Values(sum)), true, nil
}

// callers send 200 calls every 10 ms until ctx ends.
func (b *balancer) callers(ctx context.Context) error {
	ticker := time.NewTicker(width)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			b.call(now.Round(0), 200)
		}
	}
}

func (b *balancer) call(now time.Time, calls int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make(map[string]gray.MemberOutcome)
	total := 0
	for _, share := range b.shares {
		total += share
	}
	for addr, share := range b.shares {
		m := gray.MemberOutcome{ID: addr, Requests: int64(calls * share / total)}
		for range m.Requests {
			if rand.Float64() < b.failing[addr] {
				m.Failures++
			}
		}
		if m.Requests > 0 {
			counts[addr] = m
		}
	}
	b.buckets = append(b.buckets, bucket{at: now, counts: counts})
}
