package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
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

func TestStageIsSeenWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	a, b := newWorld(t, memory), newWorld(t, memory)
	const n = 5000
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
	c := newWorld(t, memory)
	if got := c.loads(c.Snapshot()); got[3] != n-1 || got[4] != 1 {
		t.Fatalf("a new replica reads %v", got)
	}
	row, _ := c.devices.Get(c.Snapshot(), "d00001")
	if row.Revision != revisions[3] {
		t.Errorf("a staged row has revision %d on a new replica, want %d", row.Revision, revisions[3])
	}
}
