package server_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
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

// A lease lasts for as long as was asked, by the time that goes by and not by what a clock shows: neither one without a stream
// nor an agent's ends with a step, or goes on for it.
func TestStepsEndNoLease(t *testing.T) {
	t.Parallel()
	var clock clocktest.Clock
	s := l5test.NewServer(t, func(c *server.Config) {
		c.Grace, c.ExpiryShare = 100*time.Millisecond, 1
		server.SetClock(c, clock.Now)
	})
	device, _ := l5test.Agent(t, s.Target(), nil)
	if err := device.Register(within(t), l5.Instance{Service: "a", Addr: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	lease := func(addr string, ttl time.Duration) {
		t.Helper()
		answer, err := wire(t, s.Target()).Renew(within(t), connect.NewRequest(&l5pb.RenewRequest{
			Owner: "owner of " + addr, TtlMs: ttl.Milliseconds(), Put: []*l5pb.Instance{{Service: "a", Addr: addr}},
		}))
		if err != nil || answer.Msg.GetFault() != "" {
			t.Fatal(err, answer.Msg.GetFault())
		}
	}
	lease("127.0.0.1:2", time.Hour)
	for i, step := range []time.Duration{72 * time.Hour, -144 * time.Hour, 73 * time.Hour} {
		short := fmt.Sprintf("127.0.0.1:%d", 3+i)
		lease(short, time.Second)
		clock.Step(step)
		l5test.Await(t, "what was leased for a second is gone", func() bool { return !slices.Contains(addrs(s.Name().Instances("a")), short) })
		for _, left := range s.Name().Instances("a") {
			if left.Suspect || !left.Live {
				t.Errorf("after a step by %v %s is doubted: %s", step, left.Addr, left.Reason)
			}
		}
		if left := addrs(s.Name().Instances("a")); len(left) != 2 {
			t.Errorf("after a step by %v there are %v", step, left)
		}
	}
}
