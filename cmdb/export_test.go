package cmdb

import (
	"context"
	"time"
)

// SetClock makes db read the time from now. Before Run.
func (db *DB) SetClock(now func() time.Time) { db.hooks.now = now }

// SetBetween makes db call f after each change is decided and before it is written. Before Run.
func (db *DB) SetBetween(f func()) { db.hooks.between = f }

// PlantBlindWrite plants the bug of a lost update: what a change was decided on is not checked when it is
// written.
func (db *DB) PlantBlindWrite() { db.hooks.blind = true }

// ExpireDue returns what has expired, as the reconciler does at each tick.
func (db *DB) ExpireDue(ctx context.Context) { db.expireDue(ctx, db.hooks.now()) }
