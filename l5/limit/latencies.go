package limit

import (
	"math"
	"time"
)

// Latencies is a histogram of the latencies of late: what is older counts half as much every ten seconds. It is for
// one goroutine.
type Latencies struct {
	bound  func(i int) time.Duration
	counts []float64
	total  float64
}

// latencyHalfLife is after how long a latency counts half.
const latencyHalfLife = 10 * time.Second

// leastLatencies is how many calls must have been seen of late for a quantile.
const leastLatencies = 20

// NewLatencies returns an empty histogram of n buckets; bucket i ends at bound(i), and the last has no end.
func NewLatencies(n int, bound func(i int) time.Duration) *Latencies {
	return &Latencies{bound: bound, counts: make([]float64, n)}
}

// Step adds what was counted in a window of the given span. Counts beyond the histogram's buckets are left out.
func (l *Latencies) Step(span time.Duration, counts []int64) {
	keep := math.Exp2(-float64(max(span, 0)) / float64(latencyHalfLife))
	l.total = 0
	for i := range l.counts {
		l.counts[i] *= keep
		if i < len(counts) {
			l.counts[i] += float64(max(counts[i], 0))
		}
		l.total += l.counts[i]
	}
}

// Quantile returns the latency that the share q of calls stays below, interpolated within its bucket; 0 when too
// little was seen.
func (l *Latencies) Quantile(q float64) time.Duration {
	if l.total < leastLatencies {
		return 0
	}
	want := min(max(q, 0), 1) * l.total
	var sum float64
	for i, n := range l.counts {
		if n > 0 && sum+n >= want {
			low := time.Duration(0)
			if i > 0 {
				low = l.bound(i - 1)
			}
			return low + time.Duration((want-sum)/n*float64(l.bound(i)-low))
		}
		sum += n
	}
	return l.bound(len(l.counts) - 1)
}

// Least returns a latency that hardly a call was below: where the first bucket with a hundredth of the calls
// begins. 0 when too little was seen.
func (l *Latencies) Least() time.Duration {
	if l.total < leastLatencies {
		return 0
	}
	var sum float64
	for i, n := range l.counts {
		if sum += n; sum >= l.total/100 {
			if i == 0 {
				return 0
			}
			return l.bound(i - 1)
		}
	}
	return 0
}
