package center

import "github.com/zhiyun-ops/zhiyun/internal/store"

// The shape in which the centers keep their records.
type (
	Store  = store.Store
	Record = store.Record
	Event  = store.Event
	Op     = store.Op
)
