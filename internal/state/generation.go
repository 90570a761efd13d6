package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Keys of the DB's own, beside its tables: no table's name starts with a dot.
const (
	generationKey = ".generation"
	stagePrefix   = ".stage/"
	barrierKey    = ".barrier"
	stageHead     = "head"
)

// generation is a large apply that is published by one record. What makes it atomic: its rows lie in chunks that no
// reader looks at; the one commit that writes the generation's record makes them all valid, and every replica
// judges at that commit, from the rows it holds, whether the conditions hold. Then the rows are copied to their
// own records, while writers of those rows wait.
//
//	staging ──publish──> published ──conditions hold──> folding ──copied──> closed
//	   └── given up          └── they do not ──> closed, without effect
type generation struct {
	id        string
	published int64 // revision at which readers see the rows
	chunks    int
	valid     bool
	folding   bool
	rows      map[name]*stagedRow // never changed
}

type verdict uint8

const (
	undecided verdict = iota
	accepted
	refused
)

// generationRecord is what stands under generationKey.
type generationRecord struct {
	ID      string `json:"id"`
	Chunks  int    `json:"chunks"`
	Folding int64  `json:"folding"` // the revision of publishing, once the generation was found valid
}

func generationJSON(id string, chunks int, folding int64) []byte {
	return fmt.Appendf(nil, `{"id":%q,"chunks":%d,"folding":%d}`, id, chunks, folding)
}

// stagedRow is one row of a chunk.
type stagedRow struct {
	Table  string          `json:"t"`
	Key    string          `json:"k"`
	Base   int64           `json:"b"`           // the record's revision that the generation depends on
	Value  json.RawMessage `json:"v,omitempty"` // absent: the row is deleted, or only checked
	Delete bool            `json:"d,omitempty"`
}

// staging is what the replica has seen of a generation that is not published.
type staging struct{ chunks map[string][]stagedRow }

// stage takes a record outside of the tables.
func (r *replica) stage(record store.Record) {
	rest, ok := strings.CutPrefix(record.Key, stagePrefix)
	id, chunk, found := strings.Cut(rest, "/")
	if !ok || !found || chunk == stageHead {
		return
	}
	var rows []stagedRow
	if err := json.Unmarshal(record.Value, &rows); err != nil {
		return // a generation with a chunk missing is refused
	}
	s := r.staged[id]
	if s == nil {
		s = &staging{chunks: make(map[string][]stagedRow)}
		r.staged[id] = s
	}
	s.chunks[chunk] = rows
}

func (r *replica) unstage(key string) {
	if key == generationKey {
		r.open, r.guard = nil, 0
		return
	}
	if rest, ok := strings.CutPrefix(key, stagePrefix); ok {
		id, chunk, _ := strings.Cut(rest, "/")
		if s := r.staged[id]; s != nil {
			delete(s.chunks, chunk)
			if len(s.chunks) == 0 {
				delete(r.staged, id)
			}
		}
	}
}

// generation takes the generation's record: it judges a published one, and shows its rows if it is valid.
func (r *replica) generation(changes []RowChange, record store.Record) []RowChange {
	r.guard, r.progress = record.Revision, record.Revision
	var have generationRecord
	if err := json.Unmarshal(record.Value, &have); err != nil {
		r.open = &generation{}
		return changes // refused; whoever tidies removes it
	}
	if r.open != nil && r.open.id == have.ID {
		next := *r.open
		next.folding = have.Folding > 0
		r.open = &next
		return changes
	}
	g := &generation{id: have.ID, chunks: have.Chunks, published: record.Revision, folding: have.Folding > 0}
	if g.folding {
		g.published = have.Folding
	}
	r.settle()
	g.rows, g.valid = r.judge(have)
	r.open = g
	if !g.valid {
		r.verdicts[g.id] = refused
		return changes
	}
	r.verdicts[g.id] = accepted
	changes = slices.Grow(changes, len(g.rows))
	for _, n := range slices.SortedFunc(maps.Keys(g.rows), compareNames) { // neighbours share nodes of the tree, which are copied once
		changes = r.show(changes, n, g.rows[n], g.published)
	}
	return changes
}

// judge collects a generation's rows and tells whether it is valid: it is whole, and every row it depends on is as
// it was when it was staged. One that is being folded was judged before: its records are changing already.
func (r *replica) judge(have generationRecord) (map[name]*stagedRow, bool) {
	s := r.staged[have.ID]
	if s == nil || len(s.chunks) != have.Chunks {
		return nil, false
	}
	count := 0
	for _, chunk := range s.chunks {
		count += len(chunk)
	}
	rows, valid := make(map[name]*stagedRow, count), true
	for _, chunk := range s.chunks {
		for i := range chunk {
			row := &chunk[i]
			n := name{row.Table, row.Key}
			if _, known := r.tables[row.Table]; known && r.plantedBug != "every generation is valid" && have.Folding == 0 && r.recordOf(n) != row.Base {
				valid = false
			}
			rows[n] = row
		}
	}
	return rows, valid
}

// recordOf returns the revision of the row's record, 0 if there is none.
func (r *replica) recordOf(n name) int64 {
	if e := r.find(n); e != nil {
		return e.record
	}
	if f := r.faults[n.String()]; f != nil {
		return f.Revision
	}
	return 0
}

// show makes a staged row visible, ahead of its record.
func (r *replica) show(changes []RowChange, n name, row *stagedRow, revision int64) []RowChange {
	t, known := r.tables[n.table]
	switch {
	case !known:
		return changes
	case row.Delete:
		return r.remove(changes, n)
	case row.Value == nil:
		return changes // a condition
	}
	old := r.find(n)
	if old != nil && old.revision == revision {
		return changes // listed from its record
	}
	value, err := t.decode(n.key, row.Value)
	if err != nil {
		if old != nil {
			changes = r.remove(changes, n)
		}
		r.fault(n.String(), &Fault{Table: n.table, Key: n.key, Revision: row.Base, Err: err})
		return changes
	}
	r.fault(n.String(), nil)
	return r.insert(changes, n, old, &entry{key: n.key, value: value, revision: revision, record: row.Base})
}

func stageKey(id string, part string) string { return stagePrefix + id + "/" + part }

func chunkName(i int) string { return fmt.Sprintf("%06d", i) }
