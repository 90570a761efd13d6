package state

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/hashicorp/go-memdb"
)

// entry is a row as the replica holds it. It is never changed: a write makes a new one.
type entry struct {
	key      string
	value    any      // *T
	revision int64    // of the commit that wrote the row, as readers see it
	record   int64    // of the store's record, for conditions; differs from revision for rows that were staged
	places   [][]byte // where it stands in its table's indexes: first by key, then once per indexed value
}

// A table has two indexes, however many its schema has. A radix tree keeps two nodes and two channels per row, and a
// transaction a cache per tree that it writes; so all indexed values share one tree, each behind its index's number.
const (
	byKey       = "id" // the name that go-memdb demands
	byKeyPrefix = byKey + "_prefix"
	byValue     = "value"
)

// memory makes an empty database of the tables. Nothing waits on its watches, so that it does without them, as
// snapshots do.
func memory(tables map[string]Schema) (*memdb.MemDB, error) {
	schema := &memdb.DBSchema{Tables: make(map[string]*memdb.TableSchema, len(tables))}
	for name, t := range tables {
		indexes := map[string]*memdb.IndexSchema{byKey: {Name: byKey, Unique: true, Indexer: keys{}}}
		if t.indexCount() > 0 {
			// Unique, since a place ends with the row's key: go-memdb need not make it so by copying.
			indexes[byValue] = &memdb.IndexSchema{Name: byValue, Unique: true, AllowMissing: true, Indexer: values{}}
		}
		schema.Tables[name] = &memdb.TableSchema{Name: name, Indexes: indexes}
	}
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		return nil, err
	}
	return db.Snapshot(), nil
}

// keys is go-memdb's view of the rows by key, in the order of its bytes.
type keys struct{}

func (keys) FromObject(row any) (bool, []byte, error)     { return true, row.(*entry).places[0], nil }
func (keys) FromArgs(args ...any) ([]byte, error)         { return []byte(args[0].(string)), nil }
func (k keys) PrefixFromArgs(args ...any) ([]byte, error) { return k.FromArgs(args...) }

// values is go-memdb's view of the rows by what they are indexed by. Its arguments are an index's number and a value.
type values struct{}

func (values) FromObject(row any) (bool, [][]byte, error) {
	places := row.(*entry).places[1:]
	return len(places) > 0, places, nil
}

func (values) FromArgs(args ...any) ([]byte, error) {
	return appendValue(make([]byte, 0, 48), args[0].(int), args[1].(string)), nil
}

// places computes where a row stands, once for all the times that go-memdb asks.
func places(schema Schema, key string, value any) [][]byte {
	var room [256]byte
	var marks [8]int
	all, ends := append(room[:0], key...), append(marks[:0], len(key))
	for i := range schema.indexCount() {
		for _, v := range schema.indexValues(i, value) {
			all = append(appendValue(all, i, v), key...)
			ends = append(ends, len(all))
		}
	}
	all = bytes.Clone(all)
	out, from := make([][]byte, len(ends)), 0
	for i, end := range ends {
		out[i], from = all[from:end:end], end
	}
	return out
}

// appendValue appends the part of a place before the key. No value's part is a prefix of another's: 0 0 ends it, and
// a zero within the value is 0 255.
func appendValue(to []byte, index int, value string) []byte {
	to = binary.AppendUvarint(to, uint64(index))
	for {
		zero := strings.IndexByte(value, 0)
		if zero < 0 {
			return append(append(to, value...), 0, 0)
		}
		to = append(append(to, value[:zero]...), 0, 255)
		value = value[zero+1:]
	}
}
