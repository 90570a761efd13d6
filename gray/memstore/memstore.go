// Package memstore keeps rollouts in process memory: for tests, examples and programs whose rollouts may end
// with the process.
package memstore

import (
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// New returns an empty store.
func New() gray.Store { return store.NewMemory() }
