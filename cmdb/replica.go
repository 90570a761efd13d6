package cmdb

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// replica is the whole record in memory, fed by one watch.
type replica struct {
	mu       sync.RWMutex
	objects  map[Kind]map[string]entry // guarded by mu
	refs     map[Ref]map[Ref]struct{}  // guarded by mu: who refers to it
	provided map[Ref]map[Ref]struct{}  // guarded by mu: who provides it
	states   map[State]map[string]struct{}
	revision int64         // guarded by mu
	loaded   bool          // guarded by mu
	changed  chan struct{} // guarded by mu; closed and replaced when revision moves
}

type entry struct {
	object   Object
	revision int64
}

func newReplica() *replica {
	r := &replica{changed: make(chan struct{})}
	r.reset()
	return r
}

func (r *replica) reset() {
	r.objects = map[Kind]map[string]entry{}
	r.refs, r.provided = map[Ref]map[Ref]struct{}{}, map[Ref]map[Ref]struct{}{}
	r.states = map[State]map[string]struct{}{}
}

// load replaces everything by a listing.
func (r *replica) load(records []store.Record, revision int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset()
	for _, record := range records {
		if err := r.put(record); err != nil {
			return err
		}
	}
	r.loaded = true
	r.move(revision)
	return nil
}

// apply makes one commit visible, whole.
func (r *replica) apply(event store.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range event.Deletes {
		if ref, ok := refOf(key); ok {
			r.drop(ref)
		}
	}
	for _, record := range event.Puts {
		if err := r.put(record); err != nil {
			return err
		}
	}
	r.move(event.Revision)
	return nil
}

func (r *replica) move(revision int64) {
	r.revision = revision
	close(r.changed)
	r.changed = make(chan struct{})
}

func refOf(key string) (Ref, bool) {
	kind, name, ok := strings.Cut(key, "/")
	return Ref{Kind(kind), name}, ok && kindOrder(Kind(kind)) >= 0
}

func (r *replica) put(record store.Record) error {
	ref, ok := refOf(record.Key)
	if !ok {
		return nil // history, which is read from the store when asked for
	}
	object := kindTable[kindOrder(ref.Kind)].make()
	if err := json.Unmarshal(record.Value, object); err != nil {
		return fmt.Errorf("cmdb: record %q cannot be read: %w; restore it from its history", record.Key, err)
	}
	r.drop(ref)
	if r.objects[ref.Kind] == nil {
		r.objects[ref.Kind] = map[string]entry{}
	}
	r.objects[ref.Kind][ref.Name] = entry{object, record.Revision}
	for _, to := range object.references() {
		add(r.refs, to.to, ref)
	}
	for _, what := range object.provides() {
		add(r.provided, what, ref)
	}
	if d, ok := object.(*Device); ok {
		add(r.states, d.State, d.Name)
	}
	return nil
}

func (r *replica) drop(ref Ref) {
	old, ok := r.objects[ref.Kind][ref.Name]
	if !ok {
		return
	}
	delete(r.objects[ref.Kind], ref.Name)
	for _, to := range old.object.references() {
		remove(r.refs, to.to, ref)
	}
	for _, what := range old.object.provides() {
		remove(r.provided, what, ref)
	}
	if d, ok := old.object.(*Device); ok {
		remove(r.states, d.State, d.Name)
	}
}

func add[K, V comparable](index map[K]map[V]struct{}, key K, value V) {
	if index[key] == nil {
		index[key] = map[V]struct{}{}
	}
	index[key][value] = struct{}{}
}

func remove[K, V comparable](index map[K]map[V]struct{}, key K, value V) {
	delete(index[key], value)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}

// The view of a replica is read under its lock.

func (r *replica) get(ref Ref) (Object, bool) {
	e, ok := r.objects[ref.Kind][ref.Name]
	return e.object, ok
}

func (r *replica) all(kind Kind) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, name := range sortedKeys(r.objects[kind]) {
			if !yield(r.objects[kind][name].object) {
				return
			}
		}
	}
}

func (r *replica) referring(to Ref) iter.Seq[Object] { return r.members(r.refs[to]) }

func (r *replica) providing(what Ref) iter.Seq[Object] { return r.members(r.provided[what]) }

func (r *replica) members(set map[Ref]struct{}) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		refs := make([]Ref, 0, len(set))
		for ref := range set {
			refs = append(refs, ref)
		}
		slices.SortFunc(refs, compareRefs)
		for _, ref := range refs {
			if object, ok := r.get(ref); ok && !yield(object) {
				return
			}
		}
	}
}

func (r *replica) inState(state State) iter.Seq[*Device] {
	return func(yield func(*Device) bool) {
		for _, name := range sortedKeys(r.states[state]) {
			if d, ok := device(r, name); ok && !yield(d) {
				return
			}
		}
	}
}
