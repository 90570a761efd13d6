package clocktest_test

import (
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
)

// The wall time moves and nothing else does, forward and back.
func TestStep(t *testing.T) {
	t.Parallel()
	var c clocktest.Clock
	for _, by := range []time.Duration{0, 5 * time.Hour, -50 * time.Hour} {
		before, shown := time.Now(), c.Now()
		if shown.Before(before) {
			t.Errorf("%v was before %v", shown, before)
		}
		c.Step(by)
		after := clocktest.Shift(shown, by)
		if after.Sub(shown) != 0 || after.UnixNano()-shown.UnixNano() != int64(by) {
			t.Errorf("stepped by %v: %v after %v, on the wall %v", by, after.Sub(shown), shown, time.Duration(after.UnixNano()-shown.UnixNano()))
		}
		if next := c.Now(); next.Before(shown) || next.Sub(shown) > time.Minute || next.Unix()-shown.Unix() < int64(by/time.Second) {
			t.Errorf("stepped by %v: from %v to %v", by, shown, next)
		}
	}
}
