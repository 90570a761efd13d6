package state_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

type device struct {
	Name   string   `json:"name"`
	Module string   `json:"module,omitempty"`
	Tags   []string `json:"tags,omitempty"`
	Load   int      `json:"load,omitempty"`
}

type module struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// world is a pair of tables in a DB that runs until the test ends.
type world struct {
	*state.DB
	devices *state.Table[device]
	modules *state.Table[module]
	stop    func()
}

func newTables() *world {
	return &world{
		devices: state.NewTable("device", func(d *device) string { return d.Name },
			state.Index("module", func(d *device) []string {
				if d.Module == "" {
					return nil
				}
				return []string{d.Module}
			}),
			state.Index("tag", func(d *device) []string { return d.Tags })),
		modules: state.NewTable("module", func(m *module) string { return m.Name }),
	}
}

func newWorld(t testing.TB, s store.Store, change ...func(*state.Config)) *world {
	t.Helper()
	w := newTables()
	config := state.Config{Store: s, Tables: []state.Schema{w.devices, w.modules}}
	for _, c := range change {
		c(&config)
	}
	var err error
	if w.DB, err = state.New(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	within(t, func(ctx context.Context) error { return w.Ready(ctx) })
	return w
}

// within fails the test if f does not succeed in a generous time.
func within(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Fatal(err)
	}
}

func (w *world) put(t testing.TB, devices ...device) int64 {
	t.Helper()
	revision, err := w.Update(t.Context(), func(tx *state.Tx) error {
		for _, d := range devices {
			w.devices.Put(tx, &d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func (w *world) names(r state.Reader, index, value string) []string {
	var out []string
	for row := range w.devices.By(r, index, value) {
		out = append(out, row.Key)
	}
	return out
}

func TestUpdateIsSeenByItsWriterAndByIndexes(t *testing.T) {
	over(t, updateIsSeenByItsWriterAndByIndexes)
}

func updateIsSeenByItsWriterAndByIndexes(t *testing.T, s store.Store) {
	w := newWorld(t, s)
	revision := w.put(t, device{Name: "d1", Module: "shop", Tags: []string{"a", "a\x00b"}}, device{Name: "d2", Module: "shop.cart"}, device{Name: "d0", Module: "shop"})
	snap := w.Snapshot()
	if snap.Revision() < revision {
		t.Fatalf("snapshot at %d after an update at %d", snap.Revision(), revision)
	}
	if diff := cmp.Diff([]string{"d0", "d1"}, w.names(snap, "module", "shop")); diff != "" {
		t.Error("devices of shop:", diff)
	}
	if diff := cmp.Diff([]string{"d1"}, w.names(snap, "tag", "a")); diff != "" {
		t.Error("devices tagged a:", diff)
	}
	row, ok := w.devices.Get(snap, "d2")
	if !ok || row.Revision != revision || row.Value.Module != "shop.cart" {
		t.Errorf("d2 is %+v, %v", row, ok)
	}
	var from []string
	for row := range w.devices.From(snap, "d1") {
		from = append(from, row.Key)
	}
	if diff := cmp.Diff([]string{"d1", "d2"}, from); diff != "" {
		t.Error("from d1:", diff)
	}

	w.put(t, device{Name: "d1", Module: "shop.cart"})
	if _, err := w.Update(t.Context(), func(tx *state.Tx) error { w.devices.Delete(tx, "d2"); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"d1"}, w.names(w.Snapshot(), "module", "shop.cart")); diff != "" {
		t.Error("devices of shop.cart after the move:", diff)
	}
	if diff := cmp.Diff([]string{"d0", "d1"}, w.names(snap, "module", "shop")); diff != "" {
		t.Error("the old snapshot changed:", diff)
	}
}

func TestTransactionReadsItsOwnWritesInOrder(t *testing.T) {
	over(t, transactionReadsItsOwnWritesInOrder)
}

func transactionReadsItsOwnWritesInOrder(t *testing.T, s store.Store) {
	w := newWorld(t, s)
	w.put(t, device{Name: "b", Module: "m"}, device{Name: "d", Module: "m"})
	_, err := w.Update(t.Context(), func(tx *state.Tx) error {
		w.devices.Put(tx, &device{Name: "a", Module: "m"})
		w.devices.Put(tx, &device{Name: "c", Module: "m"})
		w.devices.Put(tx, &device{Name: "b", Module: "other"})
		w.devices.Delete(tx, "d")
		w.devices.Put(tx, &device{Name: "e", Module: "m"})
		w.devices.Delete(tx, "e")
		if diff := cmp.Diff([]string{"a", "c"}, w.names(tx, "module", "m")); diff != "" {
			t.Error("of m within the transaction:", diff)
		}
		if diff := cmp.Diff([]string{"b", "d"}, w.names(tx.Snapshot(), "module", "m")); diff != "" {
			t.Error("in the transaction's snapshot:", diff)
		}
		var all []string
		for row := range w.devices.All(tx) {
			all = append(all, row.Key)
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, all); diff != "" {
			t.Error("all within the transaction:", diff)
		}
		if _, ok := w.devices.Get(tx, "d"); ok {
			t.Error("d is there after its delete")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c"}, w.names(w.Snapshot(), "module", "m")); diff != "" {
		t.Error("of m after the transaction:", diff)
	}
}

// Writers that move a sum between two tables, on two replicas, lose nothing.
func TestConcurrentUpdatesOverTwoTablesAreSerial(t *testing.T) {
	over(t, concurrentUpdatesOverTwoTablesAreSerial)
}

func concurrentUpdatesOverTwoTablesAreSerial(t *testing.T, s store.Store) {
	replicas := []*world{newWorld(t, s), newWorld(t, s)}
	replicas[0].put(t, device{Name: "d"})
	within(t, replicas[1].Sync)
	const each = 50
	var writers sync.WaitGroup
	for i := range 4 {
		w := replicas[i%2]
		writers.Go(func() {
			for range each {
				if _, err := w.Update(t.Context(), func(tx *state.Tx) error {
					d, _ := w.devices.Get(tx, "d")
					m, _ := w.modules.Get(tx, "m")
					next := *d.Value
					next.Load++
					count := 0
					if m.Value != nil {
						count = m.Value.Count
					}
					if count != d.Value.Load {
						return fmt.Errorf("device says %d, module %d: half of an update was read", d.Value.Load, count)
					}
					w.devices.Put(tx, &next)
					w.modules.Put(tx, &module{Name: "m", Count: count + 1})
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	for _, w := range replicas {
		within(t, w.Sync)
		if d, _ := w.devices.Get(w.Snapshot(), "d"); d.Value.Load != 4*each {
			t.Errorf("%d after %d updates", d.Value.Load, 4*each)
		}
	}
}

func TestSyncShowsWhatAnotherReplicaWrote(t *testing.T) { over(t, syncShowsWhatAnotherReplicaWrote) }

func syncShowsWhatAnotherReplicaWrote(t *testing.T, s store.Store) {
	a, b := newWorld(t, store.Prefixed(s, "here/")), newWorld(t, store.Prefixed(s, "here/"))
	for i := range 50 {
		a.put(t, device{Name: "d", Load: i})
		// A commit elsewhere: the store's revision alone does not tell whether the replica is up to date.
		if _, err := s.Commit(t.Context(), store.Put("elsewhere", nil)); err != nil {
			t.Fatal(err)
		}
		within(t, b.Sync)
		if d, ok := b.devices.Get(b.Snapshot(), "d"); !ok || d.Value.Load != i {
			t.Fatalf("after Sync: %+v, want load %d", d, i)
		}
	}
}

// I8: a watcher sees each revision at most once and in order, or is told to resync.
func TestWatchResumesAndSignalsResync(t *testing.T) { over(t, watchResumesAndSignalsResync) }

func watchResumesAndSignalsResync(t *testing.T, s store.Store) {
	w := newWorld(t, s, func(c *state.Config) { c.History = 8 })
	start := w.Snapshot().Revision()
	var want []int64
	for i := range 6 {
		want = append(want, w.put(t, device{Name: "d", Load: i}, device{Name: fmt.Sprint("d", i)}))
	}
	read := func(after int64, n int) (got []int64, err error) {
		for change, err := range w.Watch(t.Context(), after) {
			if err != nil {
				return got, err
			}
			if len(change.Rows) != 2 {
				t.Errorf("change at %d has %d rows, want both of its commit", change.Revision, len(change.Rows))
			}
			if got = append(got, change.Revision); len(got) == n {
				return got, nil
			}
		}
		return got, nil
	}
	got, err := read(start, 6)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("from the start: %v, %v, want %v", got, err, want)
	}
	got, err = read(want[2], 3)
	if err != nil || !slices.Equal(got, want[3:]) {
		t.Errorf("from %d: %v, %v, want %v", want[2], got, err, want[3:])
	}
	for i := range 8 {
		w.put(t, device{Name: "e", Load: i + 1}, device{Name: fmt.Sprint("e", i)})
	}
	if _, err = read(start, 1); !errors.Is(err, state.ErrResync) {
		t.Errorf("from a revision that is no longer kept: %v, want ErrResync", err)
	}
	for change, err := range w.Watch(t.Context(), w.Snapshot().Revision()-1) {
		if err != nil {
			t.Fatal(err)
		}
		for edit := range w.devices.Edits(change) {
			if edit.Key == "e" && (edit.Old.Load != 7 || edit.New.Load != 8) {
				t.Errorf("edit of e: %+v to %+v", edit.Old, edit.New)
			}
		}
		break
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	bad := state.NewTable[device]("Device", nil, state.Index[device]("id", nil))
	_, err := state.New(state.Config{Tables: []state.Schema{bad, nil}, History: -1, StageGrace: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"Config.Store", `"Device"`, "key function", `"id"`, "Config.Tables[1]", "Config.History", "Config.StageGrace"} {
		if !contains(err, part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}
