package scale_test

import (
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// I7: a load of which reports are missing is a lower bound. It is reason enough to grow, and none to shrink.
func TestLowerBoundsGrowAndNeverShrink(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	policy := scale.Policy{ReactWithin: 30 * time.Second, InAfter: 5 * time.Minute, Target: 0.7}
	m := scale.Module{Name: "m", Loss: 0.01, Min: 1, Capacity: map[string]float64{"t": 10}, Policy: policy}
	for _, name := range []string{"a", "b", "c", "d"} {
		m.Serving = append(m.Serving, scale.Device{Name: name, Type: "t", Share: 100})
	}
	history := func(rate float64, atLeast func(i int) bool) (h scale.History) {
		for i := range 60 {
			h = append(h, scale.Sample{At: now.Add(time.Duration(i-60) * 10 * time.Second), Rate: rate, Valid: true, AtLeast: atLeast(i)})
		}
		return h
	}
	never, always := func(int) bool { return false }, func(int) bool { return true }
	for _, test := range []struct {
		name string
		h    scale.History
		sign int
		code string
	}{
		{"low, all reported", history(5, never), -1, scale.CodeLoadLow},
		{"low, many cut off", history(5, always), 0, scale.CodeHistory},
		{"low, many cut off for a minute", history(5, func(i int) bool { return i >= 40 && i < 46 }), 0, scale.CodeHistory},
		{"low, many cut off for one bucket", history(5, func(i int) bool { return i == 40 }), -1, scale.CodeLoadLow},
		{"low, many cut off long ago", history(5, func(i int) bool { return i < 20 }), -1, scale.CodeLoadLow},
		{"high, many cut off", history(39, always), 1, scale.CodeLoadHigh},
	} {
		d := scale.Decide(now, m, test.h)
		if d.Delta > 0 != (test.sign > 0) || d.Delta < 0 != (test.sign < 0) || d.Reason.Code != test.code {
			t.Errorf("%s: %+d, %s; want sign %d, %s", test.name, d.Delta, d.Reason, test.sign, test.code)
		}
	}
}
