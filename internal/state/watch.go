package state

import (
	"context"
	"iter"
	"sort"
)

// Change is one commit: every row that it changed, at one revision.
type Change struct {
	Revision int64
	Rows     []RowChange // by table and key
}

// RowChange is what a commit did to one row. Old and New are pointers to the table's row type; Old is nil for a new
// row, New for one that is gone. Table.Edits yields them typed.
type RowChange struct {
	Table, Key string
	Old, New   any
}

// keptRows bounds the row changes held for watchers, whatever the number of commits.
const keptRows = 200_000

// remember adds a change to the history. The caller holds mu.
func (db *DB) remember(c Change) {
	db.history = append(db.history, c)
	db.kept += len(c.Rows)
	drop := 0
	for n := len(db.history); n-drop > 1 && (n-drop > db.config.History || db.kept > keptRows); drop++ {
		db.kept -= len(db.history[drop].Rows)
		db.floor = db.history[drop].Revision
	}
	if drop > 0 {
		db.history = db.history[drop:]
	}
}

// Watch yields every change of a row with a revision greater than after: in order, each whole, each once. It waits
// for the next one, and ends when ctx does, by yielding its error. A watcher that is too far behind, or that was
// following when the replica itself had to be read again, gets ErrResync.
//
//	snap := db.Snapshot()
//	... read what there is ...
//	for change, err := range db.Watch(ctx, snap.Revision()) { ... }
func (db *DB) Watch(ctx context.Context, after int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := db.Ready(ctx); err != nil {
			yield(Change{}, err)
			return
		}
		for {
			db.mu.Lock()
			behind := after < db.floor
			from := sort.Search(len(db.history), func(i int) bool { return db.history[i].Revision > after })
			batch := db.history[from:len(db.history):len(db.history)]
			changed := db.changed
			db.mu.Unlock()
			if behind {
				yield(Change{}, ErrResync)
				return
			}
			for _, c := range batch {
				after = c.Revision
				if !yield(c, nil) {
					return
				}
			}
			if len(batch) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-db.stopped:
				yield(Change{}, ErrStopped)
				return
			case <-ctx.Done():
				yield(Change{}, context.Cause(ctx))
				return
			}
		}
	}
}
