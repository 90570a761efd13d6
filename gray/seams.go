package gray

import (
	"context"
	"time"
)

// Weights is the load balancer. Implementations are safe for concurrent use.
type Weights interface {
	// SetShares gives each named member of the service the percentage 0..100 of its full weight; members that
	// are not named keep theirs. It is called again until Shares reads back what was set, so it must be
	// idempotent. fence grows with each new leader: an implementation that remembers the highest number it has
	// seen refuses smaller ones, so that a leader who was replaced cannot undo the work of the next. 0 means
	// that the caller elects no leader.
	SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error

	// Shares reads back the percentage in force for every member of the service, new and old. A member that is
	// not in the answer gets no traffic.
	Shares(ctx context.Context, service string) (map[string]int, error)
}

// Outcomes is where the callers' reports are counted. Implementations are safe for concurrent use.
type Outcomes interface {
	// Outcomes sums, per member, what callers reported for the service within [from, to). Where counts are kept
	// in buckets, only buckets wholly inside count. complete is false when a part of the window was lost or is
	// not yet known (not: when nobody called): the rollout then holds, and takes it neither for success nor for
	// failure.
	Outcomes(ctx context.Context, service string, from, to time.Time) (members []MemberOutcome, complete bool, err error)
}

// MemberOutcome is what callers reported about one member in one window.
type MemberOutcome struct {
	ID       string `json:"id"`
	Requests int64  `json:"requests"` // all calls sent to the member, failed ones too
	Failures int64  `json:"failures"`
	Reports  int64  `json:"reports"` // batches of callers that mentioned the member
}
