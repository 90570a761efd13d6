package store

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Memory keeps records in process memory, with the whole guarantee of Store but durability: nothing survives
// the process. It is for tests, examples and programs that can rebuild their records. The zero value is not
// usable; call NewMemory.
type Memory struct {
	mu        sync.Mutex
	records   map[string]Record // guarded by mu
	log       []logged          // guarded by mu; commits after compacted, in order
	revision  int64             // guarded by mu
	compacted int64             // guarded by mu; commits up to here are gone
	changed   chan struct{}     // guarded by mu; closed and replaced by each commit
}

// logged is one commit, whole.
type logged struct {
	revision int64
	puts     []Record
	deletes  []string
}

// keepLog is how many commits Memory keeps for watchers; it compacts to half of it on its own.
const keepLog = 100_000

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{records: make(map[string]Record), changed: make(chan struct{})}
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix string) ([]Record, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Record
	for key, record := range m.records {
		if strings.HasPrefix(key, prefix) {
			out = append(out, record)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	return out, m.revision, nil
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, prefix string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			m.mu.Lock()
			if after < m.compacted {
				m.mu.Unlock()
				yield(Event{}, ErrCompacted)
				return
			}
			from, _ := slices.BinarySearchFunc(m.log, after+1, func(l logged, revision int64) int {
				return cmp.Compare(l.revision, revision)
			})
			batch := m.log[from:]
			batch = batch[:len(batch):len(batch)]
			changed := m.changed
			m.mu.Unlock()
			for _, commit := range batch {
				after = commit.revision
				if event := commit.under(prefix); len(event.Puts)+len(event.Deletes) > 0 && !yield(event, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				yield(Event{}, context.Cause(ctx))
				return
			case <-changed:
			}
		}
	}
}

// under is the part of a commit that touches prefix.
func (l logged) under(prefix string) Event {
	event := Event{Revision: l.revision}
	for _, record := range l.puts {
		if strings.HasPrefix(record.Key, prefix) {
			event.Puts = append(event.Puts, record)
		}
	}
	for _, key := range l.deletes {
		if strings.HasPrefix(key, prefix) {
			event.Deletes = append(event.Deletes, key)
		}
	}
	return event
}

// Commit implements Store.
func (m *Memory) Commit(ctx context.Context, ops ...Op) (int64, error) {
	if err := Validate(ops); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range ops {
		if have := m.records[op.Key].Revision; op.If != AnyRevision && op.If != have {
			return 0, &ConflictError{Key: op.Key, Want: op.If, Have: have, Whole: op.Whole}
		}
	}
	commit := logged{revision: m.revision + 1}
	for _, op := range ops {
		switch op.Kind {
		case KindPut:
			record := Record{Key: op.Key, Value: slices.Clone(op.Value), Revision: commit.revision}
			m.records[op.Key] = record
			commit.puts = append(commit.puts, record)
		case KindDelete:
			if _, ok := m.records[op.Key]; ok {
				delete(m.records, op.Key)
				commit.deletes = append(commit.deletes, op.Key)
			}
		}
	}
	if len(commit.puts)+len(commit.deletes) == 0 {
		return m.revision, nil // checks alone, or deletes of what was not there, change nothing
	}
	slices.SortFunc(commit.puts, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	slices.Sort(commit.deletes)
	m.revision = commit.revision
	m.log = append(m.log, commit)
	if len(m.log) > keepLog {
		m.compact(m.log[keepLog/2].revision)
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return m.revision, nil
}

// Compact forgets the commits up to revision: a watcher that has not seen them gets ErrCompacted.
func (m *Memory) Compact(revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compact(min(revision, m.revision))
	close(m.changed) // wakes watchers that are now behind
	m.changed = make(chan struct{})
}

func (m *Memory) compact(revision int64) {
	if revision <= m.compacted {
		return
	}
	m.compacted = revision
	for len(m.log) > 0 && m.log[0].revision <= revision {
		m.log = m.log[1:]
	}
	m.log = slices.Clone(m.log)
}
