package graytest

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// Traffic is callers at a steady rate who report every 10 ms: it implements gray.Outcomes. It counts by the shares that its Balancer
// has when it is asked, as if they had been in force for the whole window, and by the failure rates set here;
// the same question gets the same answer. All methods are safe for concurrent use.
type Traffic struct {
	balancer *Balancer
	perShare float64 // requests per second of a member at 100 %

	mu      sync.Mutex
	failing map[string]float64 // guarded by mu; member, share of requests that fail
	down    bool               // guarded by mu
	gap     bool               // guarded by mu
	silent  bool               // guarded by mu
}

// NewTraffic returns callers that send rate requests per second to each member at full share.
func NewTraffic(b *Balancer, rate float64) *Traffic {
	return &Traffic{balancer: b, perShare: rate, failing: make(map[string]float64)}
}

// Fail sets the share of requests to a member that fail, 0..1.
func (t *Traffic) Fail(id string, share float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failing[id] = share
}

// Down makes every call fail with ErrDown until it is called with false.
func (t *Traffic) Down(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

// Gap makes every window incomplete until it is called with false.
func (t *Traffic) Gap(gap bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gap = gap
}

// Silence stops the callers: windows are complete and empty.
func (t *Traffic) Silence(silent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silent = silent
}

// Outcomes implements gray.Outcomes.
func (t *Traffic) Outcomes(ctx context.Context, service string, from, to time.Time) ([]gray.MemberOutcome, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return nil, false, ErrDown
	}
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	t.balancer.mu.Lock()
	defer t.balancer.mu.Unlock()
	var out []gray.MemberOutcome
	for id, percent := range t.balancer.shares[service] {
		seconds := max(0, to.Sub(from).Seconds())
		requests := math.Floor(t.perShare * float64(percent) / 100 * seconds)
		if requests == 0 || t.silent {
			continue
		}
		out = append(out, gray.MemberOutcome{
			ID:       id,
			Requests: int64(requests),
			Failures: int64(math.Round(requests * t.failing[id])),
			Reports:  int64(math.Ceil(seconds * 100)),
		})
	}
	slices.SortFunc(out, func(a, b gray.MemberOutcome) int { return strings.Compare(a.ID, b.ID) })
	return out, !t.gap, nil
}
