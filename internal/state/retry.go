package state

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// pause spaces the attempts of one loop: a millisecond at first, a second at most, with jitter. It is the one
// place that knows the library. A pause is for one goroutine.
type pause struct{ policy *backoff.ExponentialBackOff }

func newPause() *pause {
	return &pause{backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Millisecond),
		backoff.WithMaxInterval(time.Second),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.5),
		backoff.WithMaxElapsedTime(0),
	)}
}

func (p *pause) reset() { p.policy.Reset() }

// wait returns after the next interval, or when ctx ends.
func (p *pause) wait(ctx context.Context) {
	timer := time.NewTimer(p.policy.NextBackOff())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
