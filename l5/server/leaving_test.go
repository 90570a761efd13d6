package server_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/server"
)

func TestLeaving(t *testing.T) {
	t.Parallel()
	const addr = "127.0.0.1:1"
	start := time.Unix(1_000_000, 0)
	in := server.NewIntake()
	want := func(when string, now, since time.Time, busy time.Time, unheard int) {
		t.Helper()
		got := in.Leaving(now, "a", addr, since)
		if !got.Busy.Equal(busy) || got.Unheard != unheard {
			t.Errorf("%s: busy at %v, %d unheard; want %v, %d", when, got.Busy, got.Unheard, busy, unheard)
		}
	}
	never, at := time.Time{}, func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }

	in.Hear(at(0), "idle", "a", addr, 0, 0)
	in.Hear(at(0), "elsewhere", "b", addr, 5, 0)
	in.Hear(at(1), "agent-1", "a", addr, 10, 0)
	in.Hear(at(2), "agent-2", "a", "127.0.0.1:2", 10, 0)
	want("nobody was heard since", at(4), at(3), never, 2)
	in.Hear(at(4), "agent-1", "a", "127.0.0.1:2", 10, 0)
	in.Hear(at(4), "agent-1", "a", addr, 0, 2)
	want("one was, and has calls in flight", at(4), at(3), at(4), 1)
	in.Hear(at(5), "agent-2", "a", "127.0.0.1:2", 0, 0)
	want("both were, one of them rests, and the other is silent since", at(5), at(3), at(5), 0)
	want("who had calls in flight when it fell silent has them", at(18), at(3), at(18), 0)
	want("who is silent for long is gone", at(19), at(3), at(4), 0)
	in.Hear(at(20), "agent-1", "a", addr, 1, 0)
	want("the calls have ended", at(21), at(3), at(4), 0)
	want("who has called nothing for long is not waited for", at(60), at(59), at(4), 0)
	in.Forget(at(3600))
	want("all is forgotten", at(3600), at(3599), never, 0)
}

// Who reports may name anything: what does not exist is not remembered.
func TestLeavingOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	in, now := server.NewIntake(), time.Unix(1_000_000, 0)
	for i := range 1000 {
		in.Hear(now, "liar", fmt.Sprintf("s%d", i), "127.0.0.1:1", 1, 1)
		in.Hear(now, "liar", "a", fmt.Sprintf("127.0.0.1:%d", 100+i), 1, 1)
	}
	if services, instances := in.Held(); services != 1 || instances != 0 {
		t.Errorf("%d services and %d instances are remembered, want the one service that exists", services, instances)
	}
}
