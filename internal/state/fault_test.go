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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

var errAway = errors.New("the store is away")

// away makes every call of a store fail.
func away() storetest.Hooks {
	return storetest.Hooks{
		List:   func(string) error { return errAway },
		Watch:  func(string) error { return errAway },
		Before: func([]store.Op) error { return errAway },
	}
}

// eventually waits for a condition on the DB's status.
func (w *world) eventually(t *testing.T, what string, done func(state.Status) bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done(w.Status()) {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never %s: %+v", what, w.Status())
		}
	}
}

// While the store is away, reads go on and say how old they may be; nothing is claimed to be fresh.
func TestStoreGoesAwayAndComesBack(t *testing.T) { over(t, storeGoesAwayAndComesBack) }

func storeGoesAwayAndComesBack(t *testing.T, s store.Store) {
	faulty := storetest.NewFaulty(s)
	w, other := newWorld(t, faulty), newWorld(t, s)
	w.put(t, device{Name: "d", Load: 1})
	faulty.Set(away())
	faulty.Cut(errAway)
	w.eventually(t, "disconnected", func(s state.Status) bool { return !s.Connected && errors.Is(s.Err, errAway) })

	within(t, other.Sync)
	other.put(t, device{Name: "d", Load: 2})
	if row, ok := w.devices.Get(w.Snapshot(), "d"); !ok || row.Value.Load != 1 {
		t.Errorf("cut off, it reads %+v, want the last it knew", row)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.Sync(short); !errors.Is(err, errAway) {
		t.Errorf("Sync without a store: %v, want its error", err)
	}
	_, err := w.Update(short, func(tx *state.Tx) error { w.devices.Put(tx, &device{Name: "d", Load: 3}); return nil })
	if !errors.Is(err, errAway) {
		t.Errorf("Update without a store: %v, want its error", err)
	}
	faulty.Set(storetest.Hooks{})
	within(t, w.Sync)
	if row, _ := w.devices.Get(w.Snapshot(), "d"); row.Value.Load != 2 {
		t.Errorf("back again, it reads %+v after Sync, want what others wrote", row)
	}
	faulty.Set(away())
	faulty.Cut(errAway)
	w.eventually(t, "disconnected again", func(s state.Status) bool { return !s.Connected })
	faulty.Set(storetest.Hooks{})
	w.eventually(t, "connected, though nothing is written", func(s state.Status) bool { return s.Connected })
	if s := w.Status(); s.Resyncs != 0 {
		t.Errorf("it read everything again %d times, though no commit was lost", s.Resyncs)
	}
}

// Compaction past the replica: it reads all again, keeps what did not change, and tells its watchers.
func TestCompactionPastTheReplica(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	faulty := storetest.NewFaulty(memory)
	w, other := newWorld(t, faulty), newWorld(t, memory)
	w.put(t, device{Name: "gone", Module: "m"}, device{Name: "kept", Module: "m"}, device{Name: "moved", Module: "m"})
	kept, _ := w.devices.Get(w.Snapshot(), "kept")
	watching := make(chan error, 1)
	after := w.Snapshot().Revision()
	go func() {
		for _, err := range w.Watch(context.Background(), after) {
			if err != nil {
				watching <- err
				return
			}
		}
	}()
	faulty.Set(away())
	faulty.Cut(errAway)
	w.eventually(t, "disconnected", func(s state.Status) bool { return !s.Connected })
	within(t, other.Sync)
	if _, err := other.Update(t.Context(), func(tx *state.Tx) error {
		other.devices.Delete(tx, "gone")
		other.devices.Put(tx, &device{Name: "moved", Module: "n"})
		other.devices.Put(tx, &device{Name: "new", Module: "m"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	memory.Compact(1 << 40)
	faulty.Set(storetest.Hooks{})
	within(t, w.Sync)
	if got := fmt.Sprint(w.names(w.Snapshot(), "module", "m"), w.names(w.Snapshot(), "module", "n")); got != "[kept new] [moved]" {
		t.Errorf("after the resync it reads %s", got)
	}
	if row, _ := w.devices.Get(w.Snapshot(), "kept"); row.Value != kept.Value {
		t.Error("a row that did not change was made anew")
	}
	if err := <-watching; !errors.Is(err, state.ErrResync) {
		t.Errorf("its watcher got %v, want ErrResync", err)
	}
	if s := w.Status(); s.Resyncs != 1 {
		t.Errorf("%d resyncs, want 1", s.Resyncs)
	}
}

// A commit whose answer is lost is not tried again blindly: the caller learns that it may have happened.
func TestLostAnswerIsNotRetried(t *testing.T) {
	t.Parallel()
	faulty := storetest.NewFaulty(store.NewMemory())
	w := newWorld(t, faulty)
	w.put(t, device{Name: "d", Load: 1})
	faulty.Set(storetest.Hooks{After: func([]store.Op) error { return errAway }})
	runs := 0
	_, err := w.Update(t.Context(), func(tx *state.Tx) error {
		runs++
		row, _ := w.devices.Get(tx, "d")
		w.devices.Put(tx, &device{Name: "d", Load: row.Value.Load + 1})
		return nil
	})
	if !errors.Is(err, errAway) || runs != 1 {
		t.Errorf("%v after %d runs, want the store's error after 1", err, runs)
	}
	faulty.Set(storetest.Hooks{})
	within(t, w.Sync)
	if row, _ := w.devices.Get(w.Snapshot(), "d"); row.Value.Load != 2 {
		t.Errorf("load %d: the commit had happened once", row.Value.Load)
	}
}

func TestUpdateUnderATermThatEnded(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	elector := store.NewMemoryElector(memory)
	w := newWorld(t, store.Prefixed(memory, "/deep/"))
	term, err := elector.Campaign(t.Context(), "gray", "one")
	if err != nil {
		t.Fatal(err)
	}
	write := func(tx *state.Tx) error { w.devices.Put(tx, &device{Name: "d", Load: 1}); return nil }
	if _, err := w.Update(t.Context(), write, state.Under(term)); err != nil {
		t.Fatal(err)
	}
	elector.Depose("gray")
	if _, err := w.Update(t.Context(), write, state.Under(term)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("an update under an ended term: %v, want ErrFenced", err)
	}
	if _, err := w.Stage(t.Context(), w.putMany(500, 1), state.Under(term)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("a stage under an ended term: %v, want ErrFenced", err)
	}
	if got := w.loads(w.Snapshot()); len(got) != 0 {
		t.Errorf("a fenced stage wrote %v", got)
	}
}

// A record that is not a row is left out, said, and mended by writing the row.
func TestBrokenRecord(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	commit := func(key, value string) {
		if _, err := memory.Commit(t.Context(), store.Put(key, []byte(value))); err != nil {
			t.Fatal(err)
		}
	}
	commit("device/a", `{"name":"a"}`)
	commit("device/b", `{"name":`)
	commit("device/c", `{"name":"other"}`)
	commit("elsewhere/x", "not ours")
	w := newWorld(t, memory)
	if faults := w.Snapshot().Faults(); len(faults) != 2 || w.Status().Faults != 2 {
		t.Fatalf("faults %v, want those of b and c", faults)
	}
	commit("device/a", "nonsense")
	within(t, w.Sync)
	if _, ok := w.devices.Get(w.Snapshot(), "a"); ok {
		t.Error("a row is read from a record that no longer holds it")
	}
	w.put(t, device{Name: "a", Module: "m"}, device{Name: "b", Module: "m"})
	if _, err := w.Stage(t.Context(), func(tx *state.Tx) error { w.devices.Put(tx, &device{Name: "c", Module: "m"}); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(w.names(w.Snapshot(), "module", "m"), w.Snapshot().Faults()); got != "[a b c] []" {
		t.Errorf("after mending: %s", got)
	}
}

func TestTransactionFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, store.NewMemory())
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		run  func(*state.Tx) error
		want error
	}{
		"own error": {func(tx *state.Tx) error { w.devices.Put(tx, &device{Name: "d"}); return mine }, mine},
		"no key":    {func(tx *state.Tx) error { w.devices.Put(tx, &device{}); return nil }, state.ErrInvalid},
		"nil row":   {func(tx *state.Tx) error { w.devices.Put(tx, nil); return nil }, state.ErrInvalid},
		"too large": {func(tx *state.Tx) error {
			w.devices.Put(tx, &device{Name: "d", Module: strings.Repeat("x", 2<<20)})
			return nil
		}, store.ErrTooLarge},
	} {
		if _, err := w.Update(t.Context(), c.run); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if revision, err := w.Update(t.Context(), func(tx *state.Tx) error { w.devices.Delete(tx, "absent"); return nil }); err != nil || revision != w.Snapshot().Revision() {
		t.Errorf("an update that writes nothing: %d, %v", revision, err)
	}
	if _, ok := w.devices.Get(w.Snapshot(), "d"); ok {
		t.Error("a failed update wrote")
	}
	for range w.devices.By(w.Snapshot(), "no such index", "x") {
		t.Error("an index that does not exist yields a row")
	}
}

func TestLifeCycle(t *testing.T) {
	t.Parallel()
	w := newTables()
	registry := prometheus.NewPedanticRegistry()
	db, err := state.New(state.Config{Store: store.NewMemory(), Tables: []state.Schema{w.devices}, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := db.Ready(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ready before Run: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	within(t, db.Ready)
	if err := db.Run(ctx); err == nil {
		t.Error("Run twice is accepted")
	}
	if _, err := db.Update(ctx, func(tx *state.Tx) error { w.devices.Put(tx, &device{Name: "d"}); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader("# HELP zhiyun_state_commits_total Commits tried, by result: ok, conflict (tried again), error.\n# TYPE zhiyun_state_commits_total counter\nzhiyun_state_commits_total{result=\"ok\"} 1\n"), "zhiyun_state_commits_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, ok := w.devices.Get(db.Snapshot(), "d"); !ok {
		t.Error("a stopped replica no longer shows its rows")
	}
	if err := db.Sync(t.Context()); !errors.Is(err, state.ErrStopped) {
		t.Errorf("Sync after the end: %v, want ErrStopped", err)
	}
	for _, err := range db.Watch(t.Context(), db.Snapshot().Revision()) {
		if !errors.Is(err, state.ErrStopped) {
			t.Errorf("Watch after the end: %v, want ErrStopped", err)
		}
	}
	if _, err := state.New(state.Config{Store: store.NewMemory(), Tables: []state.Schema{w.devices}, Metrics: registry}); err == nil {
		t.Error("two DBs share a registerer without an error")
	}
}

// Many who ask for fresh rows at a time share barriers.
func TestSyncsShareBarriers(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	faulty := storetest.NewFaulty(store.Prefixed(memory, "/here/"))
	w := newWorld(t, faulty)
	if _, err := memory.Commit(t.Context(), store.Put("elsewhere", nil)); err != nil {
		t.Fatal(err)
	}
	var commits atomic.Int64
	hold := make(chan struct{})
	faulty.Set(storetest.Hooks{Before: func([]store.Op) error { commits.Add(1); <-hold; return nil }})
	const n = 100
	var asking sync.WaitGroup
	done := make(chan error, n)
	for range n {
		asking.Add(1)
		go func() { // it tells its end
			asking.Done()
			done <- w.Sync(t.Context())
		}()
	}
	asking.Wait() // nobody comes when the others have been served
	close(hold)
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := commits.Load(); got == 0 || got > n/4 {
		t.Errorf("%d callers of Sync took %d barriers", n, got)
	}
}
