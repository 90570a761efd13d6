package gray

import "github.com/zhiyun-ops/zhiyun/internal/store"

// Store keeps the rollouts. gray/memstore and gray/etcdstore make one; an embedder may bring its own, held to
// the contract of the methods. Hand in a store that is scoped to this package alone: its keys start with
// "open/", "done/", "active/" and "event/".
type Store = store.Store

// What an implementer of Store needs besides.
type (
	Record        = store.Record
	StoreEvent    = store.Event
	Op            = store.Op
	ConflictError = store.ConflictError
)

// Errors of a Store that the controller tells apart.
var (
	ErrConflict  = store.ErrConflict
	ErrCompacted = store.ErrCompacted
	ErrFenced    = store.ErrFenced
)
