// Package storetest holds stores to the guarantees of package store. An implementation's test is a few lines:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { return mystore.New(...) })
//	}
//
// Beside the suite there are its instruments, for tests of faults: Recorder validates what a watcher saw, Registers
// checks compare-and-set histories for linearizability, Journal keeps what was acknowledged, and Faulty makes a store
// that fails on demand.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// patience bounds every wait of the suite; only a hang reaches it.
const patience = time.Minute

// Run checks a store. Open returns an empty one each time it is called.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, context.Context, store.Store)
	}{
		{"List", list},
		{"Conditions", conditions},
		{"AllOrNothing", allOrNothing},
		{"NoChange", noChange},
		{"Invalid", invalid},
		{"LargestCommit", largestCommit},
		{"WatchIsOrderedUniqueAtomicResumable", watch},
		{"WatchWaits", watchWaits},
		{"WatchEndsWithItsContext", watchEnds},
		{"Prefixed", prefixed},
		{"CompareAndSetIsLinearizable", registers},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(t, ctx, open(t))
		})
	}
}

// commit must succeed.
func commit(t *testing.T, ctx context.Context, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	revision, err := s.Commit(ctx, ops...)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return revision
}

func read(t *testing.T, ctx context.Context, s store.Store, prefix string) ([]store.Record, int64) {
	t.Helper()
	records, revision, err := s.List(ctx, prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return records, revision
}

func put(key, value string) store.Op { return store.Put(key, []byte(value)) }

func list(t *testing.T, ctx context.Context, s store.Store) {
	if records, _ := read(t, ctx, s, ""); len(records) != 0 {
		t.Fatalf("a new store has %d records", len(records))
	}
	first := commit(t, ctx, s, put("b/1", "x"), put("a/1", "y"))
	second := commit(t, ctx, s, put("b/1", "z"), put("b/2", ""))
	third := commit(t, ctx, s, put("ba", "v"))
	if first >= second || second >= third {
		t.Fatalf("revisions %d, %d, %d do not grow", first, second, third)
	}
	all := []store.Record{
		{Key: "a/1", Value: []byte("y"), Revision: first}, {Key: "b/1", Value: []byte("z"), Revision: second},
		{Key: "b/2", Value: []byte{}, Revision: second}, {Key: "ba", Value: []byte("v"), Revision: third},
	}
	for prefix, want := range map[string][]store.Record{"": all, "b/": all[1:3], "b": all[1:], "a/1": all[:1], "c": nil} {
		got, revision := read(t, ctx, s, prefix)
		if diff := cmp.Diff(want, got, sameBytes); diff != "" {
			t.Errorf("list %q (-want +got):\n%s", prefix, diff)
		}
		if revision < third {
			t.Errorf("list %q is as of %d, before the last acknowledged commit %d", prefix, revision, third)
		}
	}
}

// sameBytes holds nil and empty for equal.
var sameBytes = cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })

func conditions(t *testing.T, ctx context.Context, s store.Store) {
	first := commit(t, ctx, s, put("k", "1").IfAbsent(), store.Check("other", 0))
	conflict := func(key string, want, have int64, ops ...store.Op) {
		t.Helper()
		_, err := s.Commit(ctx, ops...)
		var c *store.ConflictError
		if !errors.As(err, &c) || !errors.Is(err, store.ErrConflict) {
			t.Fatalf("commit with a condition that does not hold: %v, want a *ConflictError", err)
		}
		if c.Key != key || c.Want != want || (c.Have != have && c.Have != store.AnyRevision) {
			t.Errorf("conflict on %q, want %d, have %d; expected %q, %d, %d", c.Key, c.Want, c.Have, key, want, have)
		}
	}
	conflict("k", 0, first, put("k", "2").IfAbsent())
	conflict("k", first+100, first, put("k", "2").At(first+100))
	conflict("gone", first, 0, put("gone", "2").At(first))
	conflict("k", 0, first, put("free", "2"), store.Check("k", 0))
	conflict("k", 0, first, store.Delete("k").At(0), put("free", "2"))
	second := commit(t, ctx, s, put("k", "2").At(first), store.Check("gone", 0))
	conflict("k", first, second, put("k", "3").At(first))
	commit(t, ctx, s, store.Delete("k").At(second))
	conflict("k", second, 0, put("k", "3").At(second))
	third := commit(t, ctx, s, put("k", "3").IfAbsent())
	if records, _ := read(t, ctx, s, ""); len(records) != 1 || records[0].Revision != third {
		t.Errorf("after all: %v, want k at %d alone", records, third)
	}
}

func allOrNothing(t *testing.T, ctx context.Context, s store.Store) {
	commit(t, ctx, s, put("a", "1"), put("b", "1"), put("d", "1"))
	before, at := read(t, ctx, s, "")
	if _, err := s.Commit(ctx, put("a", "2"), store.Delete("b"), put("c", "2"), store.Check("d", 0)); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("commit: %v, want a conflict", err)
	}
	after, now := read(t, ctx, s, "")
	if diff := cmp.Diff(before, after, sameBytes); diff != "" || now != at {
		t.Errorf("a refused commit changed the store from %d to %d:\n%s", at, now, diff)
	}
}

func noChange(t *testing.T, ctx context.Context, s store.Store) {
	first := commit(t, ctx, s, put("a", "1"))
	if revision := commit(t, ctx, s, store.Check("a", first)); revision < first {
		t.Errorf("a check alone returned revision %d, before %d", revision, first)
	}
	commit(t, ctx, s, store.Delete("not there"))
	last := commit(t, ctx, s, put("a", "1"))
	for event, err := range s.Watch(ctx, "", first) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Revision != last || len(event.Puts) != 1 {
			t.Errorf("watch yields %+v after commits that changed nothing, want the put at %d", event, last)
		}
		break
	}
	if records, _ := read(t, ctx, s, "a"); records[0].Revision != last {
		t.Errorf("a put of the same value left revision %d, want %d", records[0].Revision, last)
	}
}

func invalid(t *testing.T, ctx context.Context, s store.Store) {
	for name, ops := range map[string][]store.Op{
		"nothing":     nil,
		"empty key":   {put("a", "1"), put("", "1")},
		"twice a key": {put("a", "1"), store.Delete("a")},
		"no kind":     {{Key: "a"}},
		"condition":   {store.Put("a", nil).At(-7)},
	} {
		if _, err := s.Commit(ctx, ops...); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if records, _ := read(t, ctx, s, ""); len(records) != 0 {
		t.Errorf("invalid commits wrote %d records", len(records))
	}
}

// largestCommit: what the package promises to take goes in at once, with a condition for each key.
func largestCommit(t *testing.T, ctx context.Context, s store.Store) {
	var ops []store.Op
	value := make([]byte, (store.MaxBytes-32*store.MaxOps)/store.MaxOps)
	for i := range store.MaxOps {
		ops = append(ops, store.Put(fmt.Sprintf("k%03d", i), value).IfAbsent())
	}
	revision := commit(t, ctx, s, ops...)
	records, _ := read(t, ctx, s, "k")
	if len(records) != store.MaxOps {
		t.Fatalf("%d records after a commit of %d", len(records), store.MaxOps)
	}
	for _, r := range records {
		if r.Revision != revision {
			t.Errorf("%s has revision %d, want that of the commit, %d", r.Key, r.Revision, revision)
		}
	}
	for event, err := range s.Watch(ctx, "k", revision-1) {
		if err != nil {
			t.Fatal(err)
		}
		if len(event.Puts) != store.MaxOps {
			t.Errorf("the commit reaches a watcher with %d of %d puts", len(event.Puts), store.MaxOps)
		}
		break
	}
}

// watch: several writers, a watcher from the start, and watchers that resume everywhere.
func watch(t *testing.T, ctx context.Context, s store.Store) {
	journal := NewJournal(s)
	recorder := Record(ctx, s, "w/")
	journal.Scribble(ctx, 4, 25, "w/")
	recorder.Check(t, journal)
}

func watchWaits(t *testing.T, ctx context.Context, s store.Store) {
	_, start := read(t, ctx, s, "")
	got := make(chan store.Event)
	go func() {
		defer close(got)
		for event, err := range s.Watch(ctx, "x/", start) {
			if err != nil {
				t.Error(err)
				return
			}
			got <- event
			if len(event.Deletes) > 0 {
				return
			}
		}
	}()
	commit(t, ctx, s, put("y/1", "elsewhere"))
	first := commit(t, ctx, s, put("x/1", "a"), put("y/1", "b"))
	if event := <-got; event.Revision != first || len(event.Puts) != 1 || event.Puts[0].Key != "x/1" {
		t.Errorf("got %+v, want the part of commit %d under x/", event, first)
	}
	second := commit(t, ctx, s, store.Delete("x/1"), put("x/0", "c"))
	if event := <-got; event.Revision != second || !slices.Equal(event.Deletes, []string{"x/1"}) || len(event.Puts) != 1 {
		t.Errorf("got %+v, want commit %d whole", event, second)
	}
	<-got
}

func watchEnds(t *testing.T, ctx context.Context, s store.Store) {
	gone := errors.New("gone")
	watching, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	revision := commit(t, ctx, s, put("a", "1"))
	go func() {
		var last error
		for _, err := range s.Watch(watching, "", revision-1) {
			if last = err; err == nil {
				cancel(gone) // after the first event it waits, and is told to stop there
			}
		}
		ended <- last
	}()
	if err := <-ended; !errors.Is(err, gone) && !errors.Is(err, context.Canceled) {
		t.Errorf("a watch whose context ended yields %v last, want the context's error", err)
	}
}

func prefixed(t *testing.T, ctx context.Context, s store.Store) {
	a, b := store.Prefixed(store.Prefixed(s, "a/"), "in/"), store.Prefixed(s, "b/")
	first := commit(t, ctx, a, put("k", "1"))
	commit(t, ctx, b, put("k", "2"))
	records, _ := read(t, ctx, a, "")
	if diff := cmp.Diff([]store.Record{{Key: "k", Value: []byte("1"), Revision: first}}, records, sameBytes); diff != "" {
		t.Errorf("in a view:\n%s", diff)
	}
	_, err := a.Commit(ctx, put("k", "3").IfAbsent())
	var c *store.ConflictError
	if !errors.As(err, &c) || c.Key != "k" {
		t.Errorf("a conflict in a view names %v, want its own key", err)
	}
	last := commit(t, ctx, a, put("k", "3"), store.Delete("absent"))
	for event, err := range a.Watch(ctx, "", first) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Revision != last || event.Puts[0].Key != "k" {
			t.Errorf("a view's watch yields %+v, want k at %d", event, last)
		}
		break
	}
	records, _ = read(t, ctx, s, "")
	if len(records) != 2 || records[0].Key != "a/in/k" || records[1].Key != "b/k" {
		t.Errorf("below the views: %v", records)
	}
}

func registers(t *testing.T, ctx context.Context, s store.Store) {
	Registers(t, ctx, []store.Store{s}, RegistersConfig{Clients: 4, Ops: 60})
}
