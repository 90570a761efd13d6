package load

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Buckets are 32 to each power of two of microseconds: 3% wide. The last holds everything above an hour.
const (
	subBits = 5
	sub     = 1 << subBits
	buckets = (32 - subBits + 1) * sub
)

// Histogram counts durations. The zero value is empty and ready. Its JSON form is exact and can be merged.
type Histogram struct {
	count  int64
	sum    time.Duration
	max    time.Duration
	counts [buckets]int64
}

func bucket(d time.Duration) int {
	us := uint64(min(max(d.Microseconds(), 0), math.MaxUint32))
	if us < sub {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)*sub + int(us>>shift) - sub
}

// upper is the largest duration in a bucket.
func upper(b int) time.Duration {
	if b < sub {
		return time.Duration(b) * time.Microsecond
	}
	shift := b/sub - 1
	return time.Duration((uint64(b%sub+sub+1)<<shift)-1) * time.Microsecond
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	h.count++
	h.sum += d
	h.max = max(h.max, d)
	h.counts[bucket(d)]++
}

// Merge adds what o has.
func (h *Histogram) Merge(o *Histogram) {
	h.count += o.count
	h.sum += o.sum
	h.max = max(h.max, o.max)
	for i, n := range o.counts {
		h.counts[i] += n
	}
}

// Count is how many durations were added.
func (h *Histogram) Count() int64 { return h.count }

// Max is the longest, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average, exactly; 0 if there is none.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile is a duration that the share q (0 to 1) does not exceed, at most 3% above the exact one; 0 if there
// is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(math.Ceil(min(max(q, 0), 1) * float64(h.count)))
	var seen int64
	for b, n := range h.counts {
		if seen += n; seen >= max(rank, 1) {
			return min(upper(b), h.max)
		}
	}
	return h.max
}

type histogramJSON struct {
	Count  int64      `json:"count"`
	Sum    int64      `json:"sum_ns"`
	Max    int64      `json:"max_ns"`
	P50    int64      `json:"p50_ns"`
	P99    int64      `json:"p99_ns"`
	Counts [][2]int64 `json:"counts,omitempty"` // bucket and count of those that are not empty
}

// MarshalJSON implements json.Marshaler.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	out := histogramJSON{Count: h.count, Sum: int64(h.sum), Max: int64(h.max),
		P50: int64(h.Quantile(0.5)), P99: int64(h.Quantile(0.99))}
	for i, n := range h.counts {
		if n > 0 {
			out.Counts = append(out.Counts, [2]int64{int64(i), n})
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Histogram) UnmarshalJSON(text []byte) error {
	var in histogramJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*h = Histogram{count: in.Count, sum: time.Duration(in.Sum), max: time.Duration(in.Max)}
	for _, c := range in.Counts {
		if c[0] < 0 || c[0] >= buckets {
			return fmt.Errorf("load: histogram: there is no bucket %d", c[0])
		}
		h.counts[c[0]] = c[1]
	}
	return nil
}
