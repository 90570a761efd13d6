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
	records   map[string]Record // guarded by mu; a deleted one has revision 0, and stays for a while
	deleted   int               // guarded by mu; how many of records are deleted
	sorted    []string          // guarded by mu; the keys of records, in order, but for
	added     []string          // guarded by mu; those that came since the last List
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
	m.sort()
	var out []Record
	from, _ := slices.BinarySearch(m.sorted, prefix)
	for _, key := range m.sorted[from:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		if record := m.records[key]; record.Revision > 0 {
			out = append(out, record)
		}
	}
	return out, m.revision, nil
}

// sort merges the added keys into the sorted ones, from the back, so that a few cost little. The caller holds mu.
func (m *Memory) sort() {
	slices.Sort(m.added)
	i, j := len(m.sorted)-1, len(m.added)-1
	m.sorted = append(m.sorted, m.added...)
	for at := len(m.sorted) - 1; j >= 0; at-- {
		if i >= 0 && m.sorted[i] > m.added[j] {
			m.sorted[at], i = m.sorted[i], i-1
		} else {
			m.sorted[at], j = m.added[j], j-1
		}
	}
	m.added = nil
}

// put writes a record. The caller holds mu.
func (m *Memory) put(record Record) {
	before, known := m.records[record.Key]
	switch {
	case !known:
		m.added = append(m.added, record.Key)
	case before.Revision == 0:
		m.deleted--
	}
	m.records[record.Key] = record
}

// remove deletes a record, and reports whether there was one. Deleted ones go for good once they are the greater
// part, so that each pays for one step of that. The caller holds mu.
func (m *Memory) remove(key string) bool {
	if m.records[key].Revision == 0 {
		return false
	}
	m.records[key] = Record{}
	if m.deleted++; m.deleted <= len(m.records)/2 {
		return true
	}
	m.sort()
	m.sorted = slices.DeleteFunc(m.sorted, func(key string) bool {
		gone := m.records[key].Revision == 0
		if gone {
			delete(m.records, key)
		}
		return gone
	})
	m.deleted = 0
	return true
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
			m.put(record)
			commit.puts = append(commit.puts, record)
		case KindDelete:
			if m.remove(op.Key) {
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
