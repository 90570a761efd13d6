package state

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// name is a row's name in the store: table and key.
type name struct{ table, key string }

func (n name) String() string { return n.table + "/" + n.key }

// Tx is one attempt of an Update or a Stage. It reads the snapshot at which it began, and its own writes. Every row
// that it read or wrote must be unchanged when it commits, or the attempt is made again. A row that did not
// match a scan then, and matches now, is not noticed: to guard a whole set, read and write a row that stands for it.
// A Tx is for the one goroutine of its function, until that returns.
type Tx struct {
	v      *view
	reads  map[name]int64 // record revisions of what was read
	writes map[name]*write
	err    error
}

type write struct {
	value   any    // nil deletes
	encoded []byte // nil deletes
}

func newTx(v *view) *Tx {
	return &Tx{v: v, reads: make(map[name]int64), writes: make(map[name]*write)}
}

// Revision returns the revision of the snapshot that the transaction reads.
func (tx *Tx) Revision() int64 { return tx.v.revision }

// Snapshot returns what the transaction reads, without its own writes, and without that what is read there counts:
// the way to look for candidates among many rows. Get those that matter through the transaction.
func (tx *Tx) Snapshot() *Snapshot { return &Snapshot{tx.v} }

// fail makes the whole transaction fail with err once its function returns.
func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// base notes that the transaction depends on the row, and returns its entry in the snapshot.
func (tx *Tx) base(n name) *entry {
	e := tx.v.get(n.table, n.key)
	record := int64(0)
	if e != nil {
		record = e.record
	} else if f := tx.v.faults[n.String()]; f != nil {
		record = f.Revision // a broken record may be overwritten
	}
	tx.reads[n] = record
	return e
}

func (tx *Tx) write(table, key string, value any, encoded []byte) {
	n := name{table, key}
	if tx.base(n) == nil && value == nil && tx.v.faults[n.String()] == nil {
		delete(tx.writes, n) // nothing to delete but what the transaction itself may have put
		return
	}
	tx.writes[n] = &write{value, encoded}
}

func (tx *Tx) get(table, key string) *entry {
	n := name{table, key}
	if w, ok := tx.writes[n]; ok {
		return w.entry(key)
	}
	return tx.base(n)
}

// entry is the write as later reads of its own transaction see it; revision 0 says that it is not committed.
func (w *write) entry(key string) *entry {
	if w.value == nil {
		return nil
	}
	return &entry{key: key, value: w.value}
}

// scan merges the snapshot's rows with the transaction's own, in key order.
func (tx *Tx) scan(table string, s scan) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		own := tx.matching(table, s)
		for e := range tx.v.scan(table, s) {
			for len(own) > 0 && own[0].key < e.key {
				if !yield(own[0]) {
					return
				}
				own = own[1:]
			}
			n := name{table, e.key}
			if _, written := tx.writes[n]; written {
				continue // comes from own, if it still matches
			}
			tx.reads[n] = e.record
			if !yield(e) {
				return
			}
		}
		for _, e := range own {
			if !yield(e) {
				return
			}
		}
	}
}

// matching returns the transaction's own rows that the scan covers, in key order.
func (tx *Tx) matching(table string, s scan) []*entry {
	var out []*entry
	for n, w := range tx.writes {
		if n.table == table && w.value != nil && strings.HasPrefix(n.key, s.prefix) && n.key >= s.from &&
			(s.has == nil || s.has(w.value)) {
			out = append(out, w.entry(n.key))
		}
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
	return out
}

// ops is the transaction as one commit: its writes and reads, each with its condition, and the condition that no
// staged generation was published or closed meanwhile.
func (tx *Tx) ops() (ops []store.Op, size int) {
	ops = append(ops, store.Check(generationKey, tx.v.guard))
	for _, n := range slices.SortedFunc(maps.Keys(tx.reads), compareNames) {
		key, at := n.String(), tx.reads[n]
		w, written := tx.writes[n]
		switch {
		case !written:
			ops = append(ops, store.Check(key, at))
		case w.encoded == nil:
			ops = append(ops, store.Delete(key).At(at))
		default:
			ops = append(ops, store.Put(key, w.encoded).At(at))
			size += len(w.encoded)
		}
		size += len(key)
	}
	return ops, size
}

func compareNames(a, b name) int {
	return cmp.Or(strings.Compare(a.table, b.table), strings.Compare(a.key, b.key))
}

// touches reports whether the transaction depends on a row of the open generation.
func (tx *Tx) touches(g *generation) bool {
	for n := range tx.reads {
		if _, ok := g.rows[n]; ok {
			return true
		}
	}
	return false
}
