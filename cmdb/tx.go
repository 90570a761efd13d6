package cmdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// tx gathers the changes of one commit on top of a snapshot.
type tx struct {
	overlay
	at    snapshot
	stamp stamp
	read  map[Ref]int64 // revisions that must be the same at the commit
	blind bool          // see hooks
}

func newTx(at snapshot, s stamp) *tx {
	return &tx{overlay: newOverlay(at), at: at, stamp: s, read: map[Ref]int64{}}
}

// get reads an object that the change depends on: it is made again if the object is written meanwhile.
func (t *tx) get(ref Ref) (Object, bool) {
	if _, known := t.read[ref]; !known {
		_, revision, _ := t.at.find(ref)
		t.read[ref] = revision
	}
	return t.overlay.get(ref)
}

// put writes object, with the change's stamp as its last change.
func (t *tx) put(object Object, action string) {
	ref := object.Ref()
	old, _ := t.get(ref)
	object = object.copied()
	meta := object.meta()
	*meta = t.stamp.meta(action)
	switch {
	case old != nil:
		meta.Version = old.Metadata().Version + 1
		meta.Fields = diff(old, object)
	default:
		meta.Version = 1
		if grave, ok := find[*tombstone](t, graveOf(ref)); ok { // it lived before: its history goes on
			meta.Version = grave.Last.Version + 1
			t.remove(grave.Ref())
		}
	}
	delete(t.deletes, ref)
	t.overlay.put(object)
}

// write is put for rows of the DB's own, which have no history.
func (t *tx) write(object Object) {
	ref := object.Ref()
	t.get(ref)
	*object.meta() = Meta{At: t.stamp.at}
	t.overlay.put(object)
}

// remove is delete for rows of the DB's own.
func (t *tx) remove(ref Ref) {
	t.get(ref)
	delete(t.puts, ref)
	t.deletes[ref] = true
}

// delete removes an object and leaves a tombstone, which holds its last change.
func (t *tx) delete(ref Ref) {
	old, ok := t.get(ref)
	if !ok {
		return
	}
	t.remove(ref)
	meta := t.stamp.meta("delete")
	meta.Version, meta.Fields = old.Metadata().Version+1, diff(old, nil)
	t.write(&tombstone{Name: ref.String(), Last: meta.change(ref)})
}

// bump writes a guard.
func (t *tx) bump(name string) {
	next := &guard{Name: name}
	if have, ok := find[*guard](t, next.Ref()); ok {
		next.Count = have.Count
	}
	next.Count++
	t.write(next)
}

// errMoved says that something read is not as it was.
var errMoved = errors.New("cmdb: what the change depends on was written meanwhile")

// into repeats the change in a transaction of the replica, if all that it read is still the same.
func (t *tx) into(target *state.Tx) error {
	now := snapshot{target}
	for ref, revision := range t.read {
		if _, have, _ := now.find(ref); have != revision && !t.blind {
			return errMoved
		}
	}
	for ref, object := range t.puts {
		kindTable[kindOrder(ref.Kind)].table.put(target, object)
	}
	for ref := range t.deletes {
		kindTable[kindOrder(ref.Kind)].table.delete(target, ref.Name)
	}
	return nil
}

// update runs change on the latest snapshot and commits what it wrote, again if somebody else was first. It
// returns when this DB's reads show the commit. An error of change, or a change of nothing, is believed only if
// the snapshot is known to be fresh.
func (db *DB) update(ctx context.Context, s stamp, change func(*tx) error) (int64, error) {
	if err := db.Ready(ctx); err != nil {
		return 0, err
	}
	for fresh := false; ; {
		t := newTx(db.view(), s)
		t.blind = db.hooks.blind
		err := change(t)
		idle := len(t.puts)+len(t.deletes) == 0
		if err != nil || idle {
			if fresh {
				return db.Revision(), err
			}
			if err := db.Sync(ctx); err != nil {
				return 0, fmt.Errorf("cmdb: update: %w", err)
			}
			fresh = true
			continue
		}
		if err := db.archive(ctx, t); err != nil {
			return 0, err
		}
		if db.hooks.between != nil {
			db.hooks.between()
		}
		revision, err := db.write(ctx, t)
		if errors.Is(err, errMoved) {
			db.metrics.conflicts.Inc()
			continue
		}
		if err != nil {
			return revision, fmt.Errorf("cmdb: update: %w", err)
		}
		db.tell(t, revision)
		return revision, nil
	}
}

// tell counts what was committed, and logs each step of a device's life.
func (db *DB) tell(t *tx, revision int64) {
	for ref := range t.deletes {
		if kindTable[kindOrder(ref.Kind)].declared {
			db.metrics.changes.WithLabelValues(string(ref.Kind), "delete").Inc()
		}
	}
	for _, ref := range sortedRefs(t.puts) {
		meta := t.puts[ref].Metadata()
		if meta.Action == "" {
			continue
		}
		db.metrics.changes.WithLabelValues(string(ref.Kind), meta.Action).Inc()
		if d, ok := t.puts[ref].(*Device); ok && meta.Action != "create" && meta.Action != "update" {
			db.logger.Info("cmdb: a device changed its state", "device", d.Name, "action", meta.Action, "state", d.State, "module", d.Module,
				"holder", d.Holder, "actor", meta.Actor, "reason", meta.Reason, "execution", meta.Execution, "revision", revision)
		}
	}
}

// write commits t at one revision, whatever its size.
func (db *DB) write(ctx context.Context, t *tx) (int64, error) {
	if len(t.read) < store.MaxOps {
		revision, err := db.state.Update(ctx, t.into)
		if !errors.Is(err, store.ErrTooLarge) {
			return revision, err
		}
	}
	return db.state.Stage(ctx, t.into)
}
