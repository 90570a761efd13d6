package outcome_test

import (
	"math"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/internal/outcome"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Whatever is reported, sums neither wrap nor contradict one another: a fold that is forwarded must be taken where it arrives.
func TestFoldOfAbsurdCounts(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	f := outcome.NewFold()
	for _, o := range []*l5pb.Outcome{
		{Requests: most, Failures: most},
		{Requests: most, Rejected: most, Reports: most, InFlight: most},
		{Requests: most, LatencySum: most, Histogram: []int64{most, -most}, Reports: most, InFlight: 2},
		{Requests: most, LatencySum: most, Histogram: []int64{most, most}},
	} {
		if !f.Add(o) {
			t.Errorf("%v was left out", o)
		}
	}
	sums := f.Outcomes()
	next := outcome.NewFold()
	if len(sums) != 1 || !next.Add(sums[0]) {
		t.Fatalf("not taken by the next: %v", sums)
	}
	total := int64(0)
	for range 200_000 {
		total += sums[0].Requests
	}
	if sum := sums[0]; total <= 0 || sum.LatencySum <= 0 || sum.Reports <= 0 || sum.InFlight != most || sum.Histogram[0] <= 0 || sum.Histogram[1] <= 0 {
		t.Errorf("wrapped: %v", sum)
	}
}
