// Package memstore keeps flows in memory, for tests and for programs that need no durability.
package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Store is a flow.Store in memory. It is safe for concurrent use.
type Store struct {
	mu          sync.Mutex // guards what follows
	rows        map[string]*flow.Row
	history     map[string][]flow.Record
	keys        map[[2]string]string
	tags        map[string]map[flow.Tag]bool // of each execution
	locks       map[string]flow.Lock
	notices     []flow.Notice
	definitions map[string][]flow.DefinitionRecord
}

// New returns an empty store.
func New() flow.Store {
	return &Store{
		rows: map[string]*flow.Row{}, history: map[string][]flow.Record{}, keys: map[[2]string]string{},
		tags: map[string]map[flow.Tag]bool{}, definitions: map[string][]flow.DefinitionRecord{}, locks: map[string]flow.Lock{},
	}
}

// Commit implements flow.Store.
func (s *Store) Commit(_ context.Context, batch []flow.Transition) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		if err := wakes(&batch[i].Row); err != nil {
			return nil, err
		}
	}
	fates := make([]error, len(batch))
	for i := range batch {
		fates[i] = s.apply(&batch[i])
	}
	return fates, nil
}

// wakes refuses an execution that nothing, or more than one thing, would wake, as the other stores do by a CHECK.
func wakes(r *flow.Row) error {
	open := r.State == flow.Running || r.State == flow.Compensating
	right := false
	switch w := r.Wake; w.Kind {
	case flow.WakeLease:
		right = open && w.At.IsZero() && w.For == ""
	case flow.WakeRunnable:
		right = open && w.At.IsZero()
	case flow.WakeTimer:
		right = open && !w.At.IsZero()
	case flow.WakeSignal:
		right = open && w.For != ""
	case flow.WakePerson:
		right = (open || r.State == flow.Stuck) && w.For != ""
	case flow.WakeNone:
		right = r.State.Ended() && w.At.IsZero() && w.For == ""
	}
	if !right {
		return fmt.Errorf("memstore: commit: CHECK: execution %s is %s, woken by %+v: there has to be exactly one source", r.ID, r.State, r.Wake)
	}
	return nil
}

func (s *Store) apply(t *flow.Transition) error {
	id, key := t.Row.ID, [2]string{t.Row.Flow, t.Row.Key}
	row := s.rows[id]
	switch {
	case t.Prev == 0 && (row != nil || t.Row.Key != "" && s.keys[key] != ""):
		return flow.ErrExists
	case t.Prev != 0 && (row == nil || row.Seq != t.Prev):
		return flow.ErrStale
	}
	for _, lock := range t.Take {
		if held, found := s.locks[lock.Key]; found && held.Execution != lock.Execution {
			return &flow.LockedError{Lock: held}
		}
	}
	for _, lock := range t.Take {
		if _, found := s.locks[lock.Key]; !found {
			s.locks[lock.Key] = lock
		}
	}
	for _, lock := range t.Drop {
		if s.locks[lock.Key].Execution == lock.Execution {
			delete(s.locks, lock.Key)
		}
	}
	next := t.Row
	s.rows[id] = &next
	if t.Row.Key != "" {
		s.keys[key] = id
	}
	record := t.Record
	record.Body = slices.Clone(record.Body)
	s.history[id] = append(s.history[id], record)
	s.notices = append(s.notices, t.Notices...)
	for _, tag := range t.Tags {
		if s.tags[id] == nil {
			s.tags[id] = map[flow.Tag]bool{}
		}
		s.tags[id][tag] = true
	}
	return nil
}

// History implements flow.Store.
func (s *Store) History(_ context.Context, id string, after int64, limit int) ([]flow.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	history := s.history[id]
	from, _ := slices.BinarySearchFunc(history, after+1, func(r flow.Record, seq int64) int { return cmp.Compare(r.Seq, seq) })
	history = history[from:]
	if limit > 0 && len(history) > limit {
		history = history[:limit]
	}
	return slices.Clone(history), nil
}

// Get implements flow.Store.
func (s *Store) Get(_ context.Context, id string) (flow.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[id]
	if row == nil {
		return flow.Row{}, fmt.Errorf("%w: execution %s", flow.ErrNotFound, id)
	}
	return *row, nil
}

// ByKey implements flow.Store.
func (s *Store) ByKey(_ context.Context, name, key string) (flow.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.keys[[2]string{name, key}]
	if key == "" || id == "" {
		return flow.Row{}, fmt.Errorf("%w: execution of %s with key %q", flow.ErrNotFound, name, key)
	}
	return *s.rows[id], nil
}

// List implements flow.Store.
func (s *Store) List(_ context.Context, f flow.Filter) ([]flow.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []flow.Row
	ids := slices.Sorted(maps.Keys(s.rows))
	if !f.Oldest {
		slices.Reverse(ids)
	}
	for _, id := range ids {
		if row := s.rows[id]; s.selects(&f, row) {
			out = append(out, *row)
		}
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
	}
	return out, nil
}

// selects reports whether a filter selects a row. The caller holds mu.
func (s *Store) selects(f *flow.Filter, row *flow.Row) bool {
	for _, one := range [][2]string{{f.Flow, row.Flow}, {f.Actor, row.Actor}, {f.Key, row.Key}, {f.Parent, row.Parent}, {f.Step, row.Step}} {
		if one[0] != "" && one[0] != one[1] {
			return false
		}
	}
	for _, tag := range f.Tags() {
		if !s.tags[row.ID][tag] {
			return false
		}
	}
	switch {
	case f.Version != 0 && row.Version != f.Version,
		len(f.States) > 0 && !slices.Contains(f.States, row.State),
		len(f.Wakes) > 0 && !slices.Contains(f.Wakes, row.Wake.Kind),
		f.Open && row.State.Ended(),
		!f.Since.IsZero() && row.Started.Before(f.Since),
		!f.Until.IsZero() && !row.Started.Before(f.Until),
		!f.EndedBefore.IsZero() && (row.Ended.IsZero() || !row.Ended.Before(f.EndedBefore)),
		f.Text != "" && !strings.Contains(row.Error, f.Text) && !strings.Contains(row.Wake.For, f.Text),
		f.After != "" && !f.Oldest && row.ID >= f.After,
		f.After != "" && f.Oldest && row.ID <= f.After:
		return false
	}
	return true
}

// Remove implements flow.Store.
func (s *Store) Remove(_ context.Context, ids []string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	removed := 0
	for _, id := range ids {
		row := s.rows[id]
		if row == nil || !row.State.Ended() {
			continue
		}
		delete(s.rows, id)
		delete(s.history, id)
		delete(s.tags, id)
		if row.Key != "" {
			delete(s.keys, [2]string{row.Flow, row.Key})
		}
		removed++
	}
	return removed, nil
}

// Locks implements flow.Store.
func (s *Store) Locks(context.Context) ([]flow.Lock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []flow.Lock
	for _, key := range slices.Sorted(maps.Keys(s.locks)) {
		out = append(out, s.locks[key])
	}
	return out, nil
}

// PutDefinition implements flow.Store.
func (s *Store) PutDefinition(_ context.Context, r flow.DefinitionRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.definitions[r.Name]
	if slices.ContainsFunc(versions, func(v flow.DefinitionRecord) bool { return v.Version == r.Version }) {
		return flow.ErrExists
	}
	r.Source = slices.Clone(r.Source)
	versions = append(versions, r)
	slices.SortFunc(versions, func(a, b flow.DefinitionRecord) int { return cmp.Compare(a.Version, b.Version) })
	s.definitions[r.Name] = versions
	return nil
}

// Definition implements flow.Store.
func (s *Store) Definition(_ context.Context, name string, version int) (flow.DefinitionRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.definitions[name]
	for _, r := range slices.Backward(versions) {
		if version == 0 || r.Version == version {
			return r, nil
		}
	}
	return flow.DefinitionRecord{}, fmt.Errorf("%w: flow %s version %d", flow.ErrNotFound, name, version)
}

// Definitions implements flow.Store.
func (s *Store) Definitions(context.Context) ([]flow.DefinitionRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []flow.DefinitionRecord
	for _, name := range slices.Sorted(maps.Keys(s.definitions)) {
		versions := s.definitions[name]
		out = append(out, versions[len(versions)-1])
	}
	return out, nil
}

// Notices implements flow.Store.
func (s *Store) Notices(_ context.Context, limit int) ([]flow.Notice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notices[:min(limit, len(s.notices))]), nil
}

// Delivered implements flow.Store.
func (s *Store) Delivered(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices = slices.DeleteFunc(s.notices, func(n flow.Notice) bool { return n.ID == id })
	return nil
}
