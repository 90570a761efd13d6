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

// Step runs the life cycle's core on a device in a state.
func Step(now time.Time, d Device, verb, owner, module string, until time.Time) (*Device, error) {
	v := Verbs()[verb]
	return step(now, &d, move{verb: v, owner: owner, module: module, until: until, acquisition: owner + "/key", fault: "broken"})
}

// Verbs are the arrows of the life cycle's picture.
func Verbs() map[string]verb {
	out := map[string]verb{}
	for _, v := range []verb{verbAcquire, verbRelease, verbExpire, verbRenew, verbServe, verbHold, verbForfeit, verbFault, verbRepair, verbRetire} {
		out[string(v)] = v
	}
	return out
}
