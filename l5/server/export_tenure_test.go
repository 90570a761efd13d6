package server

import (
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Tenure is what one server knows of all, moved step by step.
type Tenure struct{ *tenure }

// NewTenure returns one with a planted bug; empty: none.
func NewTenure(self string, beat time.Duration, plant string) *Tenure {
	t := newTenure(self, beat)
	t.plantedBug = plant
	return &Tenure{t}
}

// The names of its records.
const (
	BeatPrefix  = beatPrefix
	HoldsPrefix = holdsPrefix
	KeeperKey   = keeperKey
	ExpiriesKey = expiriesKey
	Deadly      = beatsToDeath
)

func (t *Tenure) Put(now time.Time, record store.Record) { t.put(now, record) }
func (t *Tenure) Remove(now time.Time, key string)       { t.remove(now, key) }
func (t *Tenure) Stream(now time.Time, owner string, step int) bool {
	return t.stream(now, owner, step)
}
func (t *Tenure) Expect(now time.Time, owner string)              { t.expect(now, owner) }
func (t *Tenure) Tick(now time.Time)                              { t.tick(now) }
func (t *Tenure) Leads() bool                                     { return t.leads() }
func (t *Tenure) Vacant() bool                                    { return t.vacant() }
func (t *Tenure) Fence() int64                                    { return t.fence }
func (t *Tenure) Alone() bool                                     { return t.alone() }
func (t *Tenure) Live(owner string) bool                          { return t.live(owner) }
func (t *Tenure) Due(now time.Time, grace time.Duration) []string { return t.due(now, grace) }
func (t *Tenure) Hold(shards map[string]struct{}) []store.Op      { return t.hold(shards) }
func (t *Tenure) Take() []OwnerEvent                              { return t.take() }

// ShardOf says where an owner stands among what its server holds.
func ShardOf(owner string) string { return shardOf(owner) }

// EncodeHistory and DecodeHistory are how expiries are kept.
func (e *Expiry) Encode(now time.Time) []byte { return encodeHistory(now, e.history) }
func (e *Expiry) Decode(now time.Time, data []byte, fresh bool) {
	e.history = since(now, decodeHistory(data), fresh)
}

// Self returns the server's name.
func (t *Tenure) Self() string { return t.self }
