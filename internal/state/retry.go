package state

import (
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/backoff"
)

// newPause spaces the attempts of one loop: a millisecond at first, a second at most.
func newPause() *backoff.Backoff {
	return backoff.New(backoff.Config{First: time.Millisecond, Most: time.Second, Jitter: 0.5})
}
