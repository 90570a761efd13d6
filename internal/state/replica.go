package state

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-memdb"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// replica turns a store's commits into rows. It is a function of what it is fed: replicas that saw the same commits
// hold the same rows, and judge a staged generation alike. It has no clock and no I/O, and is for one goroutine.
type replica struct {
	mem      *memdb.MemDB
	tables   map[string]Schema
	revision int64
	faults   map[string]*Fault
	guard    int64       // revision of the generation's record
	progress int64       // of the last commit that wrote the generation's record, or one of its rows
	open     *generation // as the record has it
	staged   map[string]*staging
	verdicts map[string]verdict // of generations judged since the last call of judged
}

func newReplica(mem *memdb.MemDB, tables map[string]Schema) *replica {
	return &replica{mem: mem, tables: tables, staged: make(map[string]*staging), verdicts: make(map[string]verdict)}
}

// view freezes the replica's present moment.
func (r *replica) view() *view {
	return &view{txn: r.mem.Txn(false), revision: r.revision, open: r.open, guard: r.guard, progress: r.progress, faults: r.faults}
}

// apply takes one commit, and returns what it did to the rows.
func (r *replica) apply(event store.Event) []RowChange {
	txn := r.mem.Txn(true)
	defer txn.Commit()
	r.revision = event.Revision
	var changes []RowChange
	for _, record := range event.Puts {
		if n, ok := r.rowName(record.Key); ok {
			changes = r.put(txn, changes, n, record)
		} else {
			r.stage(record)
		}
	}
	for _, key := range event.Deletes {
		if n, ok := r.rowName(key); ok {
			changes = r.remove(txn, changes, n)
		} else {
			r.unstage(key)
		}
	}
	for _, record := range event.Puts {
		if record.Key == generationKey {
			changes = r.generation(txn, changes, record)
		}
	}
	slices.SortFunc(changes, func(a, b RowChange) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})
	return changes
}

// load makes the replica equal to a listing of the whole store. Rows that did not change keep their values.
func (r *replica) load(records []store.Record, revision int64) {
	txn := r.mem.Txn(true)
	defer txn.Commit()
	r.revision, r.guard, r.open, r.faults = revision, 0, nil, nil
	clear(r.staged)
	listed := make(map[string]map[string]struct{}, len(r.tables))
	fresh := make(map[string]bool, len(r.tables)) // tables without a row need no second look
	for table := range r.tables {
		listed[table] = make(map[string]struct{})
		first, err := txn.First(table, primary)
		fresh[table] = err == nil && first == nil
	}
	var generation *store.Record
	for i, record := range records {
		n, ok := r.rowName(record.Key)
		switch {
		case ok:
			if !fresh[n.table] {
				listed[n.table][n.key] = struct{}{}
			}
			r.put(txn, nil, n, record)
		case record.Key == generationKey:
			generation = &records[i]
		default:
			r.stage(record)
		}
	}
	for table, keys := range listed {
		if fresh[table] {
			continue
		}
		for _, e := range entries(txn, table) {
			if _, ok := keys[e.key]; !ok {
				r.remove(txn, nil, name{table, e.key})
			}
		}
	}
	if generation != nil {
		r.generation(txn, nil, *generation)
	}
}

func entries(txn *memdb.Txn, table string) []*entry {
	var out []*entry
	found, err := txn.Get(table, primary)
	if err != nil {
		return nil // the tables are the schema's own
	}
	for obj := found.Next(); obj != nil; obj = found.Next() {
		out = append(out, obj.(*entry))
	}
	return out
}

// rowName splits a store key; false if it is not a row of one of the tables.
func (r *replica) rowName(key string) (name, bool) {
	table, rest, found := strings.Cut(key, "/")
	if !found || rest == "" {
		return name{}, false
	}
	schema, ok := r.tables[table]
	if !ok {
		return name{}, false
	}
	return name{schema.Name(), rest}, true
}

func (r *replica) find(txn *memdb.Txn, n name) *entry {
	found, err := txn.First(n.table, primary, n.key)
	if err != nil || found == nil {
		return nil
	}
	return found.(*entry)
}

// put writes one record into its table.
func (r *replica) put(txn *memdb.Txn, changes []RowChange, n name, record store.Record) []RowChange {
	old := r.find(txn, n)
	body, revision, err := unwrap(record)
	if err == nil && old != nil && old.revision == revision {
		if old.record != record.Revision { // a staged row arrives at its record: readers have it already
			r.progress = record.Revision
			_ = txn.Insert(n.table, &entry{key: old.key, value: old.value, revision: revision, record: record.Revision})
		}
		return changes
	}
	var value any
	if err == nil {
		value, err = r.tables[n.table].decode(n.key, body)
	}
	if err != nil {
		if old != nil {
			changes = r.remove(txn, changes, n)
		}
		r.fault(record.Key, &Fault{Table: n.table, Key: n.key, Revision: record.Revision, Err: err})
		return changes
	}
	r.fault(record.Key, nil)
	return r.insert(txn, changes, n, old, &entry{key: n.key, value: value, revision: revision, record: record.Revision})
}

func (r *replica) insert(txn *memdb.Txn, changes []RowChange, n name, old, e *entry) []RowChange {
	if err := txn.Insert(n.table, e); err != nil {
		// go-memdb refuses only what its indexers refuse, and ours refuse nothing.
		r.fault(n.String(), &Fault{Table: n.table, Key: n.key, Revision: e.record, Err: err})
		return changes
	}
	change := RowChange{Table: n.table, Key: n.key, New: e.value}
	if old != nil {
		change.Old = old.value
	}
	return append(changes, change)
}

func (r *replica) remove(txn *memdb.Txn, changes []RowChange, n name) []RowChange {
	r.fault(n.String(), nil)
	old := r.find(txn, n)
	if old == nil {
		return changes
	}
	_ = txn.Delete(n.table, old) // it was found in this transaction
	return append(changes, RowChange{Table: n.table, Key: n.key, Old: old.value})
}

// fault notes or clears that a record is no row. Views share the map, so that it is replaced.
func (r *replica) fault(key string, f *Fault) {
	if _, have := r.faults[key]; !have && f == nil {
		return
	}
	next := maps.Clone(r.faults)
	if next == nil {
		next = make(map[string]*Fault, 1)
	}
	if f == nil {
		delete(next, key)
	} else {
		next[key] = f
	}
	r.faults = next
}

// judged hands over the verdicts reached since it was last called.
func (r *replica) judged() iter.Seq2[string, verdict] {
	out := r.verdicts
	if len(out) > 0 {
		r.verdicts = make(map[string]verdict)
	}
	return maps.All(out)
}

// A staged row's record carries the revision of its generation before the document, so that the row's revision is
// that at which readers first saw it, on every replica and after any restart: "\x01<revision>\n{...}".
const stagedMark = 1

func wrap(revision int64, encoded []byte) []byte {
	out := append(strconv.AppendInt([]byte{stagedMark}, revision, 10), '\n')
	return append(out, encoded...)
}

func unwrap(record store.Record) ([]byte, int64, error) {
	if len(record.Value) == 0 || record.Value[0] != stagedMark {
		return record.Value, record.Revision, nil
	}
	head, body, found := bytes.Cut(record.Value[1:], []byte{'\n'})
	revision, err := strconv.ParseInt(string(head), 10, 64)
	if !found || err != nil || revision <= 0 {
		return nil, 0, fmt.Errorf("the mark of a staged row is broken: %.40q", head)
	}
	return body, revision, nil
}
