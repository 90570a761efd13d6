// Package memstore keeps orders and decisions in process memory: for tests, examples and programs whose orders may end
// with the process.
package memstore

import (
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// New returns an empty store.
func New() scale.Store { return store.NewMemory() }
