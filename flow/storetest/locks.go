package storetest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// locks: a key has one holder, a transition that would take another's changes nothing, and giving up what is not held is no fault.
func locks(t *testing.T, s flow.Store) {
	lock := func(key, execution string) flow.Lock { return flow.Lock{Key: key, Execution: execution, Since: epoch} }
	a, b := create("a"), create("b")
	a.Take = []flow.Lock{lock("module/x", "a"), lock("device/1", "a")}
	b.Take = []flow.Lock{lock("device/2", "b"), lock("module/x", "b")}
	fates, err := s.Commit(t.Context(), []flow.Transition{a, b, create("c")})
	if err != nil {
		t.Fatal(err)
	}
	var locked *flow.LockedError
	if fates[0] != nil || !errors.As(fates[1], &locked) || fates[2] != nil {
		t.Fatalf("fates %v", fates)
	}
	if diff := cmp.Diff(lock("module/x", "a"), locked.Lock); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("b was refused, and is there: %v", err)
	}
	held := func(want ...flow.Lock) {
		t.Helper()
		got, err := s.Locks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	held(lock("device/1", "a"), lock("module/x", "a"))

	// In one batch: c gives up what it has not, a gives up a key and takes one that it has, b takes the key.
	c := follow(create("c"), flow.Running, flow.Wake{Kind: flow.WakeLease})
	c.Drop = []flow.Lock{lock("module/x", "c")}
	next := follow(a, flow.Done, flow.Wake{Kind: flow.WakeNone})
	next.Take, next.Drop = []flow.Lock{lock("device/1", "a")}, []flow.Lock{lock("module/x", "a")}
	commit(t, s, []error{nil, nil, nil}, c, next, b)
	held(lock("device/1", "a"), lock("device/2", "b"), lock("module/x", "b"))

	// A transition that is stale takes nothing, and gives up nothing.
	stale := follow(b, flow.Running, flow.Wake{Kind: flow.WakeLease})
	stale.Prev = 1
	stale.Take, stale.Drop = []flow.Lock{lock("device/3", "b")}, []flow.Lock{lock("module/x", "b")}
	commit(t, s, []error{flow.ErrStale}, stale)
	held(lock("device/1", "a"), lock("device/2", "b"), lock("module/x", "b"))
}
