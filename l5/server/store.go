package server

import "github.com/zhiyun-ops/zhiyun/internal/store"

// Store keeps the registry. Its keys are "instance/SERVICE/ADDR", "instance/SERVICE/" (what was last removed),
// "rules/SERVICE", "lease/..." (who lives and holds what), "fence/SERVICE" and "epoch". An implementation
// passes the suite in internal/store/storetest; l5/memstore and l5/etcdstore hold two.
type Store = store.Store

// The parts of Store that an implementation needs.
type (
	Record = store.Record // one key with its value
	Event  = store.Event  // one commit
	Op     = store.Op     // one operation of a commit
)
