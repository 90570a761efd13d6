package state

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-memdb"
)

// view is one moment of the replica: immutable, shared by all who read it.
type view struct {
	rows     *memdb.Txn // reads only, and so is safe to share
	revision int64
	open     *generation       // staged rows that are published and not yet written to their records, or nil
	guard    int64             // revision of the generation's record, 0 if there is none
	progress int64             // revision of the last commit that moved the generation on
	faults   map[string]*Fault // records that do not decode, by store key; replaced, never changed
}

// Reader is what rows are read from: a *Snapshot, or a *Tx.
type Reader interface {
	get(table, key string) *entry
	scan(table string, s scan) iter.Seq[*entry]
}

// scan says which rows of a table to yield: those under an index's value, or those with a key prefix or from a key on.
type scan struct {
	prefix, from string
	indexed      bool                 // by the values of an index:
	index        int                  // which one
	value        string               // its value
	has          func(value any) bool // the index's own test, for rows that are not indexed yet
}

func (v *view) get(table, key string) *entry { return find(v.rows, table, key) }

// find returns the row under key, or nil.
func find(rows *memdb.Txn, table, key string) *entry {
	found, err := rows.First(table, byKey, key)
	if err != nil || found == nil {
		return nil // the only error is a table that the DB does not have
	}
	return found.(*entry)
}

func (v *view) scan(table string, s scan) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		var (
			found memdb.ResultIterator
			err   error
		)
		switch {
		case s.indexed:
			found, err = v.rows.Get(table, byValue, s.index, s.value)
		case s.from > s.prefix:
			found, err = v.rows.LowerBound(table, byKey, s.from)
		default:
			found, err = v.rows.Get(table, byKeyPrefix, s.prefix)
		}
		if err != nil {
			return // the only error is a table that the DB does not have
		}
		for row := found.Next(); row != nil; row = found.Next() {
			if e := row.(*entry); !strings.HasPrefix(e.key, s.prefix) || !yield(e) {
				return
			}
		}
	}
}

// Snapshot is the replica at one revision. It stays as it is however long it is held, costs nothing to make, and
// is safe for concurrent use. It may be older than the store: Sync first where that matters.
type Snapshot struct{ v *view }

// Revision returns the last commit that the snapshot contains.
func (s *Snapshot) Revision() int64 { return s.v.revision }

// Faults returns the records that could not be read as rows, and so are missing from the snapshot.
func (s *Snapshot) Faults() []Fault {
	out := make([]Fault, 0, len(s.v.faults))
	for _, key := range slices.Sorted(maps.Keys(s.v.faults)) {
		out = append(out, *s.v.faults[key])
	}
	return out
}

func (s *Snapshot) get(table, key string) *entry               { return s.v.get(table, key) }
func (s *Snapshot) scan(table string, q scan) iter.Seq[*entry] { return s.v.scan(table, q) }

// Fault is a record that is not a row of its table: broken, or written by a version that knows more.
type Fault struct {
	Table, Key string
	Revision   int64
	Err        error
}

// Status says how the replica stands.
type Status struct {
	Revision  int64     // of the last commit seen
	Connected bool      // the watch on the store is up; while false, reads may be old
	Since     time.Time // of the last change of Connected
	Err       error     // why it is not connected
	Resyncs   int       // how often the whole had to be read again
	Faults    int       // records that are not rows
}
