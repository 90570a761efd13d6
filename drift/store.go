package drift

import "github.com/zhiyun-ops/zhiyun/internal/store"

// Store is where a Ledger keeps its findings: list, watch, and commit with conditions. Package memstore has one
// in process memory, package etcdstore one in etcd; an embedder may hand in its own.
type Store = store.Store

// What a Store of an embedder's own is made of.
type (
	Record = store.Record
	Change = store.Event
	Op     = store.Op
)

// ErrCompacted is what Ledger.Watch yields when the changes it was asked for are no longer kept: list the
// findings again and watch from there.
var ErrCompacted = store.ErrCompacted

var (
	errConflict = store.ErrConflict
	put         = store.Put
	remove      = store.Delete
)
