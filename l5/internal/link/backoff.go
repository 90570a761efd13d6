package link

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spreads reconnects: each wait is a random share, at least half, of a step that doubles from Min to Max.
// The zero value uses 50 ms and 3 s. It is for one goroutine.
type Backoff struct {
	Min, Max time.Duration
	step     time.Duration
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	low, high := b.Min, b.Max
	if low <= 0 {
		low = 50 * time.Millisecond
	}
	if high <= 0 {
		high = 3 * time.Second
	}
	b.step = min(max(2*b.step, low), max(low, high))
	return b.step/2 + rand.N(b.step/2+1)
}

// Reset starts over from Min, after a success.
func (b *Backoff) Reset() { b.step = 0 }

// Wait waits for Next, or for ctx.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
