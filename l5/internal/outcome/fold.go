// Package outcome sums up reported outcomes.
package outcome

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

const (
	// maxBuckets bounds the histogram that a report can make the receiver hold.
	maxBuckets = 64
	// maxCount and maxLatency (nine years) are where sums stop: a report may say anything, and no sum of all that a receiver holds, nor of a
	// day of it, is to wrap. No caller comes near them.
	maxCount   = 1 << 40
	maxLatency = 1 << 58
)

// Fold sums up outcomes per caller, service, address and device. It is for one goroutine.
type Fold struct {
	sums map[key]*l5pb.Outcome
}

type key struct{ caller, service, addr, device string }

// NewFold returns an empty fold.
func NewFold() *Fold { return &Fold{sums: make(map[key]*l5pb.Outcome)} }

// Len returns how many sums there are.
func (f *Fold) Len() int { return len(f.sums) }

// Add folds one outcome in. One of no requests says that its caller is there, and rests. One whose counts contradict each other is left out, and false returned.
func (f *Fold) Add(o *l5pb.Outcome) bool {
	if o.GetRequests() < 0 || o.GetFailures() < 0 || o.GetRejected() < 0 || o.GetLatencySum() < 0 ||
		o.GetFailures() > o.GetRequests() || o.GetRejected() > o.GetRequests()-o.GetFailures() || len(o.GetHistogram()) > maxBuckets {
		return false
	}
	k := key{o.GetCaller(), o.GetService(), o.GetAddr(), o.GetDevice()}
	sum := f.sums[k]
	if sum == nil {
		sum = &l5pb.Outcome{Caller: k.caller, Service: k.service, Addr: k.addr, Device: k.device}
		f.sums[k] = sum
	}
	sum.Requests = plus(sum.Requests, o.GetRequests(), maxCount)
	sum.Failures = plus(sum.Failures, o.GetFailures(), maxCount)
	sum.Rejected = plus(sum.Rejected, o.GetRejected(), sum.Requests-sum.Failures)
	sum.LatencySum = plus(sum.LatencySum, o.GetLatencySum(), maxLatency)
	sum.InFlight = max(sum.InFlight, o.GetInFlight()) // a state, not a sum: one program may report twice
	if o.GetRequests() > 0 {
		sum.Reports = plus(sum.Reports, max(o.GetReports(), 1), maxCount)
	}
	for i, n := range o.GetHistogram() {
		if i == len(sum.Histogram) {
			sum.Histogram = append(sum.Histogram, 0)
		}
		sum.Histogram[i] = plus(sum.Histogram[i], max(n, 0), maxCount)
	}
	return true
}

// plus adds b, which is not negative, but stays at most.
func plus(a, b, most int64) int64 { return a + min(b, most-a) }

// Outcomes returns the sums, in a fixed order. They are the caller's to keep.
func (f *Fold) Outcomes() []*l5pb.Outcome {
	out := make([]*l5pb.Outcome, 0, len(f.sums))
	for _, sum := range f.sums {
		out = append(out, proto.CloneOf(sum))
	}
	slices.SortFunc(out, func(a, b *l5pb.Outcome) int {
		for _, c := range []int{
			strings.Compare(a.Service, b.Service), strings.Compare(a.Addr, b.Addr),
			strings.Compare(a.Caller, b.Caller), strings.Compare(a.Device, b.Device),
		} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	return out
}
