// Package graytest has stand-ins for the seams of package gray that inject faults on order: a load balancer
// and a source of outcomes, which play together. They are for tests of programs that embed gray.
package graytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
)

// ErrDown is what the fakes return while they are down.
var ErrDown = errors.New("graytest: down")

// Balancer is a load balancer in memory: it implements gray.Weights. The zero value has no members. All methods
// are safe for concurrent use.
type Balancer struct {
	mu     sync.Mutex
	shares map[string]map[string]int                         // guarded by mu; service, member, percent
	fence  int64                                             // guarded by mu; the highest seen
	down   bool                                              // guarded by mu
	lost   int                                               // guarded by mu; that many calls of SetShares succeed without effect
	sets   int                                               // guarded by mu
	hook   func(service string, shares map[string]int) error // guarded by mu
}

// Add registers members with a share.
func (b *Balancer) Add(service string, percent int, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shares == nil {
		b.shares = make(map[string]map[string]int)
	}
	if b.shares[service] == nil {
		b.shares[service] = make(map[string]int)
	}
	for _, id := range ids {
		b.shares[service][id] = percent
	}
}

// Remove takes members out of the service, as if their devices had died.
func (b *Balancer) Remove(service string, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		delete(b.shares[service], id)
	}
}

// Down makes every call fail with ErrDown until it is called with false.
func (b *Balancer) Down(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// Lose lets the next n calls of SetShares succeed without any effect.
func (b *Balancer) Lose(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = n
}

// Hook is called by each SetShares before anything else; its error is returned. Nil: none.
func (b *Balancer) Hook(hook func(service string, shares map[string]int) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// Sets is how often SetShares had an effect.
func (b *Balancer) Sets() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sets
}

// Share is the percentage of one member; -1 if there is no such member.
func (b *Balancer) Share(service, id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if percent, ok := b.shares[service][id]; ok {
		return percent
	}
	return -1
}

// SetShares implements gray.Weights. Members that the service does not have are passed over; a fence below the
// highest seen is refused.
func (b *Balancer) SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error {
	b.mu.Lock()
	hook := b.hook
	b.mu.Unlock()
	if hook != nil {
		if err := hook(service, shares); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(ctx); err != nil {
		return err
	}
	if fence < b.fence {
		return fmt.Errorf("graytest: fence %d is below %d: another leader sets weights now", fence, b.fence)
	}
	b.fence = fence
	if b.lost > 0 {
		b.lost--
		return nil
	}
	b.sets++
	for id, percent := range shares {
		if _, ok := b.shares[service][id]; ok {
			b.shares[service][id] = percent
		}
	}
	return nil
}

// Shares implements gray.Weights.
func (b *Balancer) Shares(ctx context.Context, service string) (map[string]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	return maps.Clone(b.shares[service]), nil
}

func (b *Balancer) usable(ctx context.Context) error {
	if b.down {
		return ErrDown
	}
	return ctx.Err()
}
