// Package memstore keeps l5's registry in process memory: for tests, examples, and programs that can rebuild it.
package memstore

import (
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// New returns an empty store. Nothing in it survives the process.
func New() server.Store { return store.NewMemory() }
