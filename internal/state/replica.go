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
	txn      *memdb.Txn // writes the commit that is being applied; nil between commits
	rows     *memdb.Txn // reads the rows as they were before txn, or when it was last settled
	tables   map[string]Schema
	revision int64
	faults   map[string]*Fault
	guard    int64       // revision of the generation's record
	progress int64       // of the last commit that wrote the generation's record, or one of its rows
	open     *generation // as the record has it
	staged   map[string]*staging
	verdicts map[string]verdict // of generations judged since the last call of judged

	// plantedBug makes the replica wrong in one way, for the test that shows that the simulation finds it.
	plantedBug string
}

func newReplica(tables map[string]Schema) (*replica, error) {
	mem, err := memory(tables)
	if err != nil {
		return nil, fmt.Errorf("state: tables: %w", err)
	}
	return &replica{
		mem: mem, rows: mem.Txn(false), tables: tables,
		staged: make(map[string]*staging), verdicts: make(map[string]verdict),
	}, nil
}

// view freezes the replica's present moment.
func (r *replica) view() *view {
	return &view{rows: r.rows, revision: r.revision, open: r.open, guard: r.guard, progress: r.progress, faults: r.faults}
}

func (r *replica) begin() { r.txn = r.mem.Txn(true) }

func (r *replica) commit() {
	r.txn.Commit()
	r.txn, r.rows = nil, r.mem.Txn(false)
}

// settle lets find see what the transaction has written. That is not for each write: a look into a transaction
// makes it copy anew every node that it writes afterwards. It need not be, since a commit names a key once.
func (r *replica) settle() { r.rows = r.txn.Snapshot() }

// apply takes one commit, and returns what it did to the rows.
func (r *replica) apply(event store.Event) []RowChange {
	r.begin()
	defer r.commit()
	r.revision = event.Revision
	var changes []RowChange
	for _, record := range event.Puts {
		if n, ok := r.rowName(record.Key); ok {
			changes = r.put(changes, n, r.find(n), record)
		} else {
			r.stage(record)
		}
	}
	for _, key := range event.Deletes {
		if n, ok := r.rowName(key); ok {
			changes = r.remove(changes, n)
		} else {
			r.unstage(key)
		}
	}
	for _, record := range event.Puts {
		if record.Key == generationKey {
			changes = r.generation(changes, record)
		}
	}
	slices.SortFunc(changes, func(a, b RowChange) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
	})
	return changes
}

// load makes the replica equal to a listing of the whole store. Rows that did not change keep their values.
func (r *replica) load(records []store.Record, revision int64) {
	r.begin()
	defer r.commit()
	r.revision, r.guard, r.open, r.faults = revision, 0, nil, nil
	clear(r.staged)
	listed := make(map[string]map[string]struct{}, len(r.tables))
	fresh := make(map[string]bool, len(r.tables)) // tables without a row need no second look
	before := r.view()
	for table := range r.tables {
		listed[table], fresh[table] = make(map[string]struct{}), true
		for range before.scan(table, scan{}) {
			fresh[table] = false
			break
		}
	}
	var generation *store.Record
	for i, record := range records {
		n, ok := r.rowName(record.Key)
		switch {
		case ok:
			var old *entry
			if !fresh[n.table] {
				listed[n.table][n.key], old = struct{}{}, r.find(n)
			}
			r.put(nil, n, old, record)
		case record.Key == generationKey:
			generation = &records[i]
		default:
			r.stage(record)
		}
	}
	for table, keys := range listed {
		if fresh[table] || r.plantedBug == "a listing removes nothing" {
			continue
		}
		for e := range before.scan(table, scan{}) {
			if _, ok := keys[e.key]; !ok {
				r.remove(nil, name{table, e.key})
			}
		}
	}
	if generation != nil {
		r.generation(nil, *generation)
	}
}

// rowName splits a store key; false if it is not a row of one of the tables.
func (r *replica) rowName(key string) (name, bool) {
	table, rest, found := strings.Cut(key, "/")
	if !found || rest == "" {
		return name{}, false
	}
	t, ok := r.tables[table]
	if !ok {
		return name{}, false
	}
	return name{t.Name(), rest}, true
}

// find returns the row as it was when the transaction began, or was last settled, or nil.
func (r *replica) find(n name) *entry { return find(r.rows, n.table, n.key) }

// put writes one record into its table, in the place of old, which is nil if there was none.
func (r *replica) put(changes []RowChange, n name, old *entry, record store.Record) []RowChange {
	body, revision, err := unwrap(record)
	if err == nil && old != nil && old.revision == revision && r.plantedBug != "a row written out is a change" {
		if old.record != record.Revision { // a staged row arrives at its record: readers have it already
			r.progress = record.Revision
			next := *old
			next.record = record.Revision
			if err := r.txn.Insert(n.table, &next); err != nil {
				return r.notTaken(changes, n, record.Revision, err)
			}
		}
		return changes
	}
	var value any
	if err == nil {
		value, err = r.tables[n.table].decode(n.key, body)
	}
	if err != nil {
		if old != nil {
			changes = r.remove(changes, n)
		}
		r.fault(record.Key, &Fault{Table: n.table, Key: n.key, Revision: record.Revision, Err: err})
		return changes
	}
	r.fault(record.Key, nil)
	return r.insert(changes, n, old, &entry{key: n.key, value: value, revision: revision, record: record.Revision})
}

func (r *replica) insert(changes []RowChange, n name, old, e *entry) []RowChange {
	e.places = places(r.tables[n.table], e.key, e.value)
	if err := r.txn.Insert(n.table, e); err != nil {
		return r.notTaken(changes, n, e.record, err)
	}
	change := RowChange{Table: n.table, Key: n.key, New: e.value}
	if old != nil {
		change.Old = old.value
	}
	return append(changes, change)
}

func (r *replica) remove(changes []RowChange, n name) []RowChange {
	r.fault(n.String(), nil)
	old := r.find(n)
	if old == nil {
		return changes
	}
	if err := r.txn.Delete(n.table, old); err != nil {
		return r.notTaken(changes, n, old.record, err)
	}
	return append(changes, RowChange{Table: n.table, Key: n.key, Old: old.value})
}

// notTaken notes that go-memdb did not take a write. It refuses what its indexers refuse, and ours refuse nothing.
func (r *replica) notTaken(changes []RowChange, n name, record int64, err error) []RowChange {
	r.fault(n.String(), &Fault{Table: n.table, Key: n.key, Revision: record, Err: err})
	return changes
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
