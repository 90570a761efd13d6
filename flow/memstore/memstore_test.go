package memstore_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) flow.Store { return memstore.New() })
}

func TestSharedConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) flow.Store { return memstore.NewShared(nil) })
	storetest.RunShared(t, func(_ *testing.T, n int) []flow.Shared {
		store := memstore.NewShared(nil)
		out := make([]flow.Shared, n)
		for i := range out {
			out[i] = store
		}
		return out
	})
}
