package store_test

import (
	"context"
	"testing"

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
