// Package memstore keeps a drift ledger's records in process memory: for tests, examples, and programs that can do
// without their findings after a restart.
package memstore

import (
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// New returns an empty store.
func New() drift.Store { return store.NewMemory() }
