package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }

func (w *world) putMany(n, load int) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		for i := range n {
			w.devices.Put(tx, &device{Name: fmt.Sprintf("d%05d", i), Module: "m", Load: load})
		}
		return nil
	}
}

// loads returns the loads that the devices of m have, with how many have each.
func (w *world) loads(r state.Reader) map[int]int {
	out := make(map[int]int)
	for row := range w.devices.By(r, "module", "m") {
		out[row.Value.Load]++
	}
	return out
}

func TestStageIsSeenWholeOrNotAtAll(t *testing.T) { over(t, stageIsSeenWholeOrNotAtAll) }

func stageIsSeenWholeOrNotAtAll(t *testing.T, s store.Store) {
	a, b := newWorld(t, s), newWorld(t, s)
	const n = 3000
	if _, err := a.Update(t.Context(), a.putMany(n, 1)); !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("an update of %d rows: %v, want ErrTooLarge", n, err)
	}
	start := b.Snapshot().Revision()
	revisions := make(map[int]int64)
	for load := 1; load <= 3; load++ {
		revision, err := a.Stage(t.Context(), a.putMany(n, load))
		if err != nil {
			t.Fatal(err)
		}
		revisions[load] = revision
		if got := a.loads(a.Snapshot()); len(got) != 1 || got[load] != n {
			t.Fatalf("its writer reads %v after stage %d", got, load)
		}
	}
	within(t, b.Sync)
	seen := 0
	for change, err := range b.Watch(t.Context(), start) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if change.Revision != revisions[seen] || len(change.Rows) != n {
			t.Fatalf("change %d: %d rows at %d, want %d at %d", seen, len(change.Rows), change.Revision, n, revisions[seen])
		}
		if seen == 3 {
			break
		}
	}
	// A writer of a staged row waits until the row is at its record; then all is as if written plainly.
	b.put(t, device{Name: "d00000", Module: "m", Load: 4})
	c := newWorld(t, s)
	if got := c.loads(c.Snapshot()); got[3] != n-1 || got[4] != 1 {
		t.Fatalf("a new replica reads %v", got)
	}
	row, _ := c.devices.Get(c.Snapshot(), "d00001")
	if row.Revision != revisions[3] {
		t.Errorf("a staged row has revision %d on a new replica, want %d", row.Revision, revisions[3])
	}
}

// A stager that dies at any of its commits leaves all or nothing: the others finish what it published, and clean up
// what it did not.
func TestStagerDiesAtEveryCommit(t *testing.T) {
	t.Parallel()
	const n = 300
	finished, vanished := 0, 0
	for fatal := 0; ; fatal++ {
		memory := store.NewMemory()
		grace := func(c *state.Config) { c.StageGrace = 20 * time.Millisecond }
		faulty := storetest.NewFaulty(memory)
		a, b := newWorld(t, faulty, grace), newWorld(t, memory, grace)
		if _, err := a.Stage(t.Context(), a.putMany(n, 1)); err != nil {
			t.Fatal(err)
		}
		within(t, func(ctx context.Context) error { return b.clean(ctx, memory) })

		dead := errors.New("dead")
		commits := atomic.Int64{}
		faulty.Set(storetest.Hooks{Before: func([]store.Op) error {
			if commits.Add(1) > int64(fatal) {
				return dead
			}
			return nil
		}})
		staging, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := a.Stage(staging, a.putMany(n, 2))
		cancel()
		a.stop()
		within(t, func(ctx context.Context) error { return b.clean(ctx, memory) })
		within(t, b.Sync)
		got := b.loads(b.Snapshot())
		switch {
		case len(got) == 1 && got[2] == n:
			finished++
		case len(got) == 1 && got[1] == n && err != nil:
			vanished++
		default:
			t.Errorf("dead after %d commits (%v), the others read %v", fatal, err, got)
		}
		fresh := newWorld(t, memory)
		if diff := cmp.Diff(got, fresh.loads(fresh.Snapshot())); diff != "" {
			t.Errorf("dead after %d commits, a new replica differs: %s", fatal, diff)
		}
		b.stop()
		fresh.stop()
		if err == nil && commits.Load() <= int64(fatal) {
			break // it lived to the end
		}
	}
	if finished == 0 || vanished == 0 {
		t.Errorf("finished by others %d times, given up %d times; want both to be tested", finished, vanished)
	}
}

// clean waits until nothing of a staged apply is left in the store.
func (w *world) clean(ctx context.Context, s store.Store) error {
	for {
		records, revision, err := s.List(ctx, ".")
		if err != nil {
			return err
		}
		left := 0
		for _, r := range records {
			if r.Key != ".barrier" {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		for _, err := range s.Watch(ctx, "", revision) {
			if err != nil {
				return fmt.Errorf("%d records of a staged apply are left: %w", left, err)
			}
			break
		}
	}
}

// Staged and plain writers of the same rows, on two replicas: every apply is whole, and none is lost.
func TestStageAmongUpdates(t *testing.T) { over(t, stageAmongUpdates) }

func stageAmongUpdates(t *testing.T, s store.Store) {
	replicas := []*world{newWorld(t, s), newWorld(t, s)}
	const n, rounds = 200, 5
	count := func(w *world, rows int) func(*state.Tx) error {
		return func(tx *state.Tx) error {
			for i := range rows {
				name := fmt.Sprintf("d%05d", i)
				next := device{Name: name, Module: "m"}
				if row, ok := w.devices.Get(tx, name); ok {
					next = *row.Value
				}
				next.Load++
				w.devices.Put(tx, &next)
			}
			return nil
		}
	}
	var working sync.WaitGroup
	for _, w := range replicas {
		working.Go(func() {
			for range rounds {
				if _, err := w.Stage(t.Context(), count(w, n)); err != nil {
					t.Error(err)
				}
			}
		})
		working.Go(func() {
			for range rounds {
				if _, err := w.Update(t.Context(), count(w, 2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	for _, w := range replicas {
		within(t, w.Sync)
		got := w.loads(w.Snapshot())
		if got[2*rounds] != n-2 || got[4*rounds] != 2 {
			t.Errorf("loads %v, want %d rows with %d and 2 with %d", got, n-2, 2*rounds, 4*rounds)
		}
	}
}
