// Package memstore keeps a cmdb's records in process memory: for tests, examples and programs that load
// their declarations at each start. Nothing survives the process.
package memstore

import (
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// New returns an empty store.
func New() cmdb.Store { return store.NewMemory() }
