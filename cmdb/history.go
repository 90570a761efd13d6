package cmdb

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// An object carries its last change itself, so that both are written by one commit. Whoever overwrites the object
// first moves that change to the history's own keys: it is a fact already, so moving it twice, or moving it for a
// commit that then fails, is harmless. Creating an object costs no second write.

// Change is one entry of an object's history.
type Change struct {
	Ref
	Version   int64         `json:"version"` // of the object after the change
	Action    string        `json:"action"`  // create, update, delete, or a verb of the life cycle
	At        time.Time     `json:"at"`
	Actor     string        `json:"actor"`
	Reason    string        `json:"reason,omitempty"`
	Execution string        `json:"execution,omitempty"`
	Fields    []FieldChange `json:"fields,omitempty"`
}

func (m Meta) change(ref Ref) Change {
	return Change{Ref: ref, Version: m.Version, Action: m.Action, At: m.At, Actor: m.Actor, Reason: m.Reason, Execution: m.Execution, Fields: m.Fields}
}

// lastChange is the change that made the object what it is.
func lastChange(object Object) Change {
	c := object.Metadata().change(object.Ref())
	if c.Fields == nil {
		c.Fields = diff(nil, object)
	}
	return c
}

func historyPrefix(ref Ref) string { return ref.String() + "/" }

func historyKey(ref Ref, version int64) string {
	return fmt.Sprintf("%s%012d", historyPrefix(ref), version)
}

// archive moves the last changes of what t overwrites to the history.
func (db *DB) archive(ctx context.Context, t *tx) error {
	if store.RehearsalOf(ctx) != nil {
		return nil // nothing is about to be overwritten
	}
	var ops []store.Op
	flush := func(limit int) error {
		if len(ops) <= limit {
			return nil
		}
		_, err := db.history.Commit(ctx, ops...)
		ops = ops[:0]
		if err != nil {
			return fmt.Errorf("cmdb: keep history: %w", err)
		}
		return nil
	}
	for ref := range t.read {
		var change Change
		object, _, ok := t.at.find(ref)
		switch grave, isGrave := object.(*tombstone); {
		case !ok || !t.covered(ref):
			continue
		case isGrave:
			change = grave.Last
		case object.Metadata().Version > 0:
			change = lastChange(object)
		default:
			continue // a row of the DB's own
		}
		data, err := json.Marshal(change)
		if err != nil {
			return fmt.Errorf("cmdb: keep history of %s: %w", ref, err)
		}
		ops = append(ops, store.Put(historyKey(change.Ref, change.Version), data))
		if old := change.Version - db.keep; old > 0 {
			ops = append(ops, store.Delete(historyKey(change.Ref, old)))
		}
		if err := flush(store.MaxOps / 2); err != nil {
			return err
		}
	}
	return flush(0)
}

// History returns the changes of one object that are kept, oldest first. An object that was deleted still has
// its history. ErrNotFound says that there never was such an object.
func (db *DB) History(ctx context.Context, kind Kind, name string) ([]Change, error) {
	if err := readable(kind); err != nil {
		return nil, err
	}
	ref := Ref{kind, name}
	v := db.view() // before the listing: what is overwritten after it is in the listing, or is the last here
	records, _, err := db.history.List(ctx, historyPrefix(ref))
	if err != nil {
		return nil, fmt.Errorf("cmdb: history of %s: %w", ref, err)
	}
	changes := make([]Change, len(records), len(records)+1)
	for i, record := range records {
		if err := json.Unmarshal(record.Value, &changes[i]); err != nil {
			return nil, fmt.Errorf("cmdb: history of %s: record %q: %w", ref, record.Key, err)
		}
	}
	add := func(c Change) {
		if n := len(changes); n == 0 || changes[n-1].Version < c.Version {
			changes = append(changes, c)
		}
	}
	if grave, ok := find[*tombstone](v, graveOf(ref)); ok {
		add(grave.Last)
	}
	if object, ok := v.get(ref); ok {
		add(lastChange(object))
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("%w: no history of %s", ErrNotFound, ref)
	}
	return changes, nil
}
