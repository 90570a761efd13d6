package cmdb

import "github.com/zhiyun-ops/zhiyun/internal/store"

// Store is where a DB keeps its records: list, watch, and commit with conditions. Package memstore holds one
// in memory, package etcdstore one in etcd; implement it to keep records elsewhere. The contract stands on
// the aliased type.
type Store = store.Store

// What an implementer of Store needs.
type (
	Record        = store.Record
	StoreEvent    = store.Event
	Op            = store.Op
	ConflictError = store.ConflictError
)
