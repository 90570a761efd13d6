// Package backoff spaces the attempts of one loop: each wait is about twice the last, with jitter, so that those who
// fail together do not come back together.
//
//	pause := backoff.New(backoff.Config{First: time.Millisecond, Most: time.Second, Jitter: 0.5})
//	for attempt() != nil {
//		pause.Wait(ctx)
//	}
//
// This file alone knows the library behind it; a test of the repository says so.
package backoff

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Config of a Backoff.
type Config struct {
	// First is the first wait, before jitter. Default 1 ms.
	First time.Duration
	// Most bounds the waits, before jitter. Default 1 s, or First if that is longer.
	Most time.Duration
	// Jitter is how far a wait may be off to either side, as a share of it: 0.5 makes 10 s anything from 5 s to 15 s.
	// 0: not at all; 1 or more counts as 1.
	Jitter float64
}

// Backoff yields waits without end. It is for one goroutine.
type Backoff struct{ policy *backoff.ExponentialBackOff }

// New returns a Backoff that has not waited yet.
func New(config Config) *Backoff {
	if config.First <= 0 {
		config.First = time.Millisecond
	}
	if config.Most <= 0 {
		config.Most = time.Second
	}
	return &Backoff{backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(config.First),
		backoff.WithMaxInterval(max(config.First, config.Most)),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(min(max(config.Jitter, 0), 1)),
		backoff.WithMaxElapsedTime(0), // it never gives up: whoever waits does
	)}
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration { return b.policy.NextBackOff() }

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.policy.Reset() }

// Wait returns after the next wait, or with ctx's error when that ends.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
