package gray_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// What is over is kept for Keep, with its events, and then leaves nothing in the store.
func TestOldRolloutsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1", "new2")
		defer func() { b.stop() }()
		b.cfg.Interval, b.cfg.Keep = 20*time.Second, 2*time.Hour
		b.restart(t)
		b.start(t, "old", "new1")
		wait(90 * time.Minute)
		b.start(t, "young", "new2")
		wait(100 * time.Minute)
		if _, err := b.Get(t.Context(), "old"); !errors.Is(err, gray.ErrNotFound) {
			t.Errorf("Get of an old rollout: %v, want ErrNotFound", err)
		}
		if _, err := b.Events(t.Context(), "old"); !errors.Is(err, gray.ErrNotFound) {
			t.Errorf("Events of an old rollout: %v, want ErrNotFound", err)
		}
		if s := b.state(t, "young"); s.State != gray.Done {
			t.Errorf("the young one is %s, want done", s.State)
		}
		records, _, err := b.store.List(t.Context(), "")
		if err != nil || len(records) != 1+len(b.codes(t, "young")) {
			t.Errorf("%d records are left, %v; want the young rollout and its events", len(records), err)
		}
	})
}
