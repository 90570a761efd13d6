package store_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
	storetest.RunCompaction(t, func(*testing.T) storetest.Compactable {
		m := store.NewMemory()
		return storetest.Compactable{Store: m, Compact: func(_ context.Context, revision int64) error {
			m.Compact(revision)
			return nil
		}}
	})
	storetest.RunElector(t, func(*testing.T) storetest.Electable {
		m := store.NewMemory()
		elector := store.NewMemoryElector(m)
		return storetest.Electable{Store: m, Elector: elector, Depose: func(_ context.Context, name string) error {
			elector.Depose(name)
			return nil
		}}
	})
}

func TestMemoryBehindAPrefix(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return store.Prefixed(store.NewMemory(), "/some/where/") })
}

func TestFaultyWithoutHooksIsItsStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return storetest.NewFaulty(store.NewMemory()) })
}

// Listings against a map that is sorted by hand, while keys come, go, and come back.
func TestMemoryListsInOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		m, model := store.NewMemory(), map[string]int64{}
		for step := range 400 {
			var ops []store.Op
			for range 1 + random.IntN(3) {
				key := fmt.Sprintf("%d/%02d", random.IntN(3), random.IntN(20))
				if slices.ContainsFunc(ops, func(op store.Op) bool { return op.Key == key }) {
					continue
				}
				if random.IntN(400) < step { // ever more are deleted
					ops = append(ops, store.Delete(key))
				} else {
					ops = append(ops, store.Put(key, nil))
				}
			}
			revision, err := m.Commit(t.Context(), ops...)
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range ops {
				if delete(model, op.Key); op.Kind == store.KindPut {
					model[op.Key] = revision
				}
			}
			if random.IntN(3) > 0 {
				continue // so that several commits lie between two listings
			}
			prefix := []string{"", "0/", "1/1", "2/", "3"}[random.IntN(5)]
			records, _, err := m.List(t.Context(), prefix)
			if err != nil {
				t.Fatal(err)
			}
			want, got := []string{}, []string{}
			for _, key := range slices.Sorted(maps.Keys(model)) {
				if strings.HasPrefix(key, prefix) {
					want = append(want, fmt.Sprintf("%s@%d", key, model[key]))
				}
			}
			for _, r := range records {
				got = append(got, fmt.Sprintf("%s@%d", r.Key, r.Revision))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, step %d, prefix %q:\n%s", seed, step, prefix, diff)
			}
		}
	}
}

// BenchmarkMemoryList lists ten records of as many as the deck has instances, with one put between two listings.
func BenchmarkMemoryList(b *testing.B) {
	m := store.NewMemory()
	for at := 0; at < 161_679; at += 1000 {
		var ops []store.Op
		for i := at; i < min(at+1000, 161_679); i++ {
			ops = append(ops, store.Put(fmt.Sprintf("instance/%06d", i*7919%161_679), nil))
		}
		if _, err := m.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	if _, _, err := m.List(b.Context(), "none"); err != nil { // the first one sorts them all
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := m.Commit(b.Context(), store.Put(fmt.Sprintf("instance/%06d/%d", i*7919%161_679, i), nil)); err != nil {
			b.Fatal(err)
		}
		if records, _, err := m.List(b.Context(), fmt.Sprintf("instance/%05d", i%16_000)); err != nil || len(records) < 10 {
			b.Fatal(len(records), err)
		}
	}
}
