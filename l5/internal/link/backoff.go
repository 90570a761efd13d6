package link

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spreads reconnects. After a stream that was open, all who lost theirs to the same server come back spread evenly
// over Spread; what fails then waits a random share, at least half, of a step that doubles from Min to Max. The zero value
// uses 1 s, 50 ms and 3 s. It is for one goroutine.
type Backoff struct {
	Spread, Min, Max time.Duration
	step             time.Duration
	open             bool // the last attempt succeeded
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	if b.open {
		b.open = false
		return rand.N(or(b.Spread, time.Second))
	}
	low, high := or(b.Min, 50*time.Millisecond), or(b.Max, 3*time.Second)
	b.step = min(max(2*b.step, low), max(low, high))
	return b.step/2 + rand.N(b.step/2+1)
}

func or(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.step, b.open = 0, true }

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
