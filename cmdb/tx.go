package cmdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// guard is a row that two kinds of change must both write if neither may happen unseen by the other: applies
// among one another, and the deletion of a module with the holding of devices for it.
type guard struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
	Meta  Meta   `json:"meta,omitzero"`
}

func (g *guard) Ref() Ref                { return Ref{kindGuard, g.Name} }
func (g *guard) Metadata() Meta          { return g.Meta }
func (g *guard) meta() *Meta             { return &g.Meta }
func (g *guard) copied() Object          { c := *g; return &c }
func (g *guard) normalize()              {}
func (g *guard) check(*checker)          {}
func (g *guard) references() []reference { return nil }
func (g *guard) provides() []Ref         { return nil }

const guardModel = "model"

func guardModule(name string) string { return "module/" + name }

// tx gathers the changes of one commit on top of a view. What is put keeps its history by itself.
type tx struct {
	overlay
	stamp   stamp
	changes []Change
	read    map[Ref]bool // must be the same at the commit
}

func newTx(v view, s stamp) *tx {
	return &tx{overlay: overlay{view: v, puts: map[Ref]Object{}, deletes: map[Ref]bool{}}, stamp: s, read: map[Ref]bool{}}
}

// get reads an object that the change depends on: the commit fails if it is written meanwhile.
func (t *tx) get(ref Ref) (Object, bool) {
	t.read[ref] = true
	return t.overlay.get(ref)
}

// put writes object; action goes into its history, "" writes none.
func (t *tx) put(object Object, action string) {
	ref := object.Ref()
	old, _ := t.get(ref)
	object = object.copied()
	meta := object.meta()
	*meta = Meta{Version: 1, UpdatedAt: t.stamp.at, Actor: t.stamp.actor}
	if old != nil {
		meta.Version = old.Metadata().Version + 1
	} else {
		meta.Version = t.reborn(ref)
	}
	t.puts[ref] = object
	t.record(ref, action, meta.Version, old, object)
}

// reborn is the first version of an object that may have lived before: its history goes on.
func (t *tx) reborn(ref Ref) int64 {
	if g, ok := find[*guard](&t.overlay, Ref{kindGuard, "gone/" + ref.String()}); ok {
		return g.Count + 1
	}
	return 1
}

func (t *tx) delete(ref Ref, action string) {
	old, ok := t.get(ref)
	if !ok {
		return
	}
	delete(t.puts, ref)
	t.deletes[ref] = true
	version := old.Metadata().Version + 1
	if action != "" {
		gone := Ref{kindGuard, "gone/" + ref.String()}
		t.read[gone] = true
		t.puts[gone] = &guard{Name: gone.Name, Count: version}
	}
	t.record(ref, action, version, old, nil)
}

func (t *tx) record(ref Ref, action string, version int64, old, new Object) {
	if action == "" {
		return
	}
	t.changes = append(t.changes, Change{
		Ref: ref, Version: version, Action: action, At: t.stamp.at,
		Actor: t.stamp.actor, Reason: t.stamp.reason, Execution: t.stamp.execution, Fields: diff(old, new),
	})
}

// bump writes a guard.
func (t *tx) bump(name string) {
	next := &guard{Name: name}
	if have, ok := find[*guard](t, next.Ref()); ok {
		next.Count = have.Count
	}
	next.Count++
	t.puts[next.Ref()] = next
}

func historyKey(ref Ref, version int64) string {
	return fmt.Sprintf("history/%s/%s/%012d", ref.Kind, ref.Name, version)
}

// ops is the commit; revision gives the revision at which the view saw an object, 0 for none.
func (t *tx) ops(revision func(Ref) int64, keep int64) ([]store.Op, error) {
	var ops []store.Op
	for ref := range t.read {
		if !t.covered(ref) {
			ops = append(ops, store.Check(ref.String(), revision(ref)))
		}
	}
	for ref, object := range t.puts {
		data, err := json.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("cmdb: write %s: %w", ref, err)
		}
		ops = append(ops, store.Put(ref.String(), data).At(revision(ref)))
	}
	for ref := range t.deletes {
		ops = append(ops, store.Delete(ref.String()).At(revision(ref)))
	}
	for _, change := range t.changes {
		data, err := json.Marshal(change)
		if err != nil {
			return nil, fmt.Errorf("cmdb: write history of %s: %w", change.Ref, err)
		}
		ops = append(ops, store.Put(historyKey(change.Ref, change.Version), data).IfAbsent())
		if old := change.Version - keep; old > 0 {
			ops = append(ops, store.Delete(historyKey(change.Ref, old)))
		}
	}
	return ops, nil
}

// update runs change on the current state and commits what it wrote, again if somebody else was first. It
// returns when this DB's reads show the commit. Nothing written is no commit.
func (db *DB) update(ctx context.Context, s stamp, change func(*tx) error) (int64, error) {
	if err := db.Ready(ctx); err != nil {
		return 0, err
	}
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval, policy.MaxInterval, policy.MaxElapsedTime = time.Millisecond, 250*time.Millisecond, 0
	for {
		revision, err := db.attempt(ctx, s, change)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) {
			return revision, err
		}
		db.metrics.conflicts.Inc()
		if conflict.Have > 0 {
			if err := db.replica.await(ctx, conflict.Have); err != nil {
				return 0, err
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("cmdb: update given up after conflicts: %w", errors.Join(ctx.Err(), err))
		case <-time.After(policy.NextBackOff()):
		}
	}
}

func (db *DB) attempt(ctx context.Context, s stamp, change func(*tx) error) (int64, error) {
	t, ops, revision, err := db.prepare(s, change)
	if err != nil || len(t.puts)+len(t.deletes) == 0 {
		return revision, err
	}
	revision, err = db.store.Commit(ctx, ops...)
	if err != nil {
		if errors.Is(err, store.ErrConflict) {
			return 0, err
		}
		return 0, fmt.Errorf("cmdb: commit: %w", err)
	}
	for _, change := range t.changes {
		db.metrics.changes.WithLabelValues(string(change.Kind), change.Action).Inc()
	}
	if err := db.replica.await(ctx, revision); err != nil {
		return revision, fmt.Errorf("cmdb: committed at revision %d, but this reader has not seen it: %w", revision, err)
	}
	return revision, nil
}

// prepare runs change under the replica's lock, so that it sees one moment.
func (db *DB) prepare(s stamp, change func(*tx) error) (*tx, []store.Op, int64, error) {
	db.replica.mu.RLock()
	defer db.replica.mu.RUnlock()
	t := newTx(db.replica, s)
	if err := change(t); err != nil {
		return nil, nil, 0, err
	}
	ops, err := t.ops(func(ref Ref) int64 { return db.replica.objects[ref.Kind][ref.Name].revision }, db.keep)
	return t, ops, db.replica.revision, err
}

// await returns when the replica shows a revision.
func (r *replica) await(ctx context.Context, revision int64) error {
	for {
		r.mu.RLock()
		have, changed := r.revision, r.changed
		r.mu.RUnlock()
		if have >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
