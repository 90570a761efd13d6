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

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// replica turns a store's commits into rows. It is a function of what it is fed: replicas that saw the same commits
// hold the same rows, and judge a staged generation alike. It has no clock and no I/O, and is for one goroutine.
type replica struct {
	tables   map[string]*rows
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

func newReplica(tables map[string]Schema) *replica {
	r := &replica{tables: make(map[string]*rows, len(tables)), staged: make(map[string]*staging), verdicts: make(map[string]verdict)}
	for name, schema := range tables {
		r.tables[name] = newRows(schema)
	}
	return r
}

// view freezes the replica's present moment.
func (r *replica) view() *view {
	tables := make(map[string]frozen, len(r.tables))
	for name, t := range r.tables {
		tables[name] = t.freeze()
	}
	return &view{tables: tables, revision: r.revision, open: r.open, guard: r.guard, progress: r.progress, faults: r.faults}
}

// apply takes one commit, and returns what it did to the rows.
func (r *replica) apply(event store.Event) []RowChange {
	r.revision = event.Revision
	var changes []RowChange
	for _, record := range event.Puts {
		if n, ok := r.rowName(record.Key); ok {
			changes = r.put(changes, n, record)
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
	r.revision, r.guard, r.open, r.faults = revision, 0, nil, nil
	clear(r.staged)
	listed := make(map[string]map[string]struct{}, len(r.tables))
	fresh := make(map[string]bool, len(r.tables)) // tables without a row need no second look
	for table, t := range r.tables {
		listed[table] = make(map[string]struct{})
		fresh[table] = t.primary.size == 0
	}
	var generation *store.Record
	for i, record := range records {
		n, ok := r.rowName(record.Key)
		switch {
		case ok:
			if !fresh[n.table] {
				listed[n.table][n.key] = struct{}{}
			}
			r.put(nil, n, record)
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
		var gone []string
		r.tables[table].primary.ascend("", "", func(it item) bool {
			if _, ok := keys[it.at]; !ok {
				gone = append(gone, it.at)
			}
			return true
		})
		for _, key := range gone {
			r.remove(nil, name{table, key})
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
	return name{t.schema.Name(), rest}, true
}

// find returns the row, or nil.
func (r *replica) find(n name) *entry { return r.tables[n.table].primary.get(n.key, n.key) }

// put writes one record into its table.
func (r *replica) put(changes []RowChange, n name, record store.Record) []RowChange {
	old := r.find(n)
	body, revision, err := unwrap(record)
	if err == nil && old != nil && old.revision == revision && r.plantedBug != "a row written out is a change" {
		if old.record != record.Revision { // a staged row arrives at its record: readers have it already
			r.progress = record.Revision
			r.tables[n.table].put(old, &entry{key: old.key, value: old.value, revision: revision, record: record.Revision})
		}
		return changes
	}
	var value any
	if err == nil {
		value, err = r.tables[n.table].schema.decode(n.key, body)
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
	r.tables[n.table].put(old, e)
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
	r.tables[n.table].remove(old)
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
