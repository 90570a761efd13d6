package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Every source that can wake an execution is kept as it is, one after the other.
func wakes(t *testing.T, s flow.Store) {
	at := epoch.Add(time.Hour)
	last := create("x")
	commit(t, s, nil, last)
	for _, one := range []struct {
		state flow.State
		wake  flow.Wake
	}{
		{flow.Running, flow.Wake{Kind: flow.WakeRunnable}},
		{flow.Running, flow.Wake{Kind: flow.WakeRunnable, For: "the lock module/login"}},
		{flow.Running, flow.Wake{Kind: flow.WakeTimer, At: at}},
		{flow.Compensating, flow.Wake{Kind: flow.WakeTimer, At: at, For: "sleep of step wait"}},
		{flow.Running, flow.Wake{Kind: flow.WakeSignal, For: "ready"}},
		{flow.Running, flow.Wake{Kind: flow.WakeSignal, For: "ready", At: at}},
		{flow.Running, flow.Wake{Kind: flow.WakePerson, For: "approval"}},
		{flow.Running, flow.Wake{Kind: flow.WakePerson, For: "approval", At: at}},
		{flow.Stuck, flow.Wake{Kind: flow.WakePerson, For: "advice"}},
		{flow.Stuck, flow.Wake{Kind: flow.WakePerson, For: "advice", At: at}},
		{flow.Compensating, flow.Wake{Kind: flow.WakeLease}},
		{flow.Done, flow.Wake{Kind: flow.WakeNone}},
	} {
		next := follow(last, one.state, one.wake)
		commit(t, s, nil, next)
		if diff := cmp.Diff(next.Row, get(t, s, "x")); diff != "" {
			t.Errorf("%v: %s", one.wake, diff)
		}
		last = next
	}
}
