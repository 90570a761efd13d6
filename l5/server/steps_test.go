package server_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// Whatever the clocks show of the server that let instances expire and of the one that decides next, and however they step, what
// expired lately counts for ten minutes, no less and no more.
func TestExpiriesCountInSpiteOfSteps(t *testing.T) {
	t.Parallel()
	const size, bound = 100, 2 // the share of 0.02
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("127.0.0.1:%d", 1000+i))
		}
		return out
	}
	for name, test := range map[string]struct {
		keeper, next time.Duration // what their clocks are off by, as the record is written and as it is read
		fresh        bool          // the next one sees it written; otherwise it finds it
		step         time.Duration // of the next one's clock, after that
		atOnce       int           // how many it lets go of ten at once
		later        int           // and ten minutes later
	}{
		"right clocks":                   {fresh: true, atOnce: 0, later: bound},
		"right clocks, found":            {atOnce: 0, later: bound},
		"the keeper's is ahead":          {keeper: 6 * time.Hour, fresh: true, atOnce: 0, later: bound},
		"the keeper's is ahead, found":   {keeper: 6 * time.Hour, atOnce: 0, later: bound},
		"the keeper's is behind":         {keeper: -6 * time.Hour, fresh: true, atOnce: 0, later: bound},
		"it steps forward":               {fresh: true, step: 6 * time.Hour, atOnce: 0, later: bound},
		"it steps back":                  {fresh: true, step: -6 * time.Hour, atOnce: 0, later: bound},
		"found, and it steps back":       {step: -6 * time.Hour, atOnce: 0, later: bound},
		"both are off, and it goes back": {keeper: 9 * time.Hour, next: -9 * time.Hour, fresh: true, step: -6 * time.Hour, atOnce: 0, later: bound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			first, second := server.NewExpiry(60, 0.02), server.NewExpiry(60, 0.02)
			now := clocktest.Shift(began, test.keeper)
			if expired, _ := first.Decide(now, "s", many(10), size); len(expired) != bound {
				t.Fatalf("%d expired at first", len(expired))
			}
			data := first.Encode(now)
			second.Decode(clocktest.Shift(began, test.next), data, test.fresh)
			now = clocktest.Shift(began.Add(time.Minute), test.next+test.step)
			if expired, held := second.Decide(now, "s", many(10), size); len(expired) != test.atOnce {
				t.Errorf("%d expired within a minute, held: %v", len(expired), held)
			}
			now = clocktest.Shift(began.Add(11*time.Minute), test.next+test.step)
			if expired, held := second.Decide(now, "s", many(10), size); len(expired) != test.later {
				t.Errorf("%d expired after eleven minutes, held: %v", len(expired), held)
			}
		})
	}
}
