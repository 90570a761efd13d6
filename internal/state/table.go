package state

import (
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
)

// Row is one row as of some revision. Its value is shared by all readers: never change what it points to; copy it,
// change the copy, and Put that.
type Row[T any] struct {
	Key      string
	Value    *T
	Revision int64 // of the commit that last wrote the row
}

// Schema is what a DB needs to know of a table. Table implements it; nothing else does.
type Schema interface {
	// Name is the table's name, which is also the first part of its keys in the store.
	Name() string

	faults() []error
	indexCount() int
	indexValues(i int, value any) []string
	decode(key string, value []byte) (any, error)
}

// Table is a typed view of the records under its name: a JSON document per row, found by its key and by its
// indexes. It holds no rows: they are in a DB, and read through a Snapshot or a Tx. Safe for concurrent use.
type Table[T any] struct {
	name    string
	key     func(*T) string
	indexes []indexing[T]
}

type indexing[T any] struct {
	name   string
	values func(*T) []string
}

// TableOption configures a table.
type TableOption[T any] func(*Table[T])

// NewTable returns a table whose rows are kept under key's result, which is not empty and never changes for a row.
// The name is of lower-case letters, digits and underscores. Faults of the definition are reported by New.
func NewTable[T any](name string, key func(*T) string, options ...TableOption[T]) *Table[T] {
	t := &Table[T]{name: name, key: key}
	for _, o := range options {
		o(t)
	}
	return t
}

// Index adds a secondary index: rows are found by By under each of the values that the function returns for
// them. It must depend on the row alone.
func Index[T any](name string, values func(*T) []string) TableOption[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, indexing[T]{name, values}) }
}

// Name implements Schema.
func (t *Table[T]) Name() string { return t.name }

// Get returns the row under key.
func (t *Table[T]) Get(r Reader, key string) (Row[T], bool) {
	found := r.get(t.name, key)
	if found == nil {
		return Row[T]{}, false
	}
	return row[T](found), true
}

// All yields every row in key order.
func (t *Table[T]) All(r Reader) iter.Seq[Row[T]] { return t.Prefix(r, "") }

// Prefix yields the rows whose keys start with prefix, in key order.
func (t *Table[T]) Prefix(r Reader, prefix string) iter.Seq[Row[T]] {
	return typed[T](r.scan(t.name, scan{prefix: prefix}))
}

// From yields the rows whose keys are not smaller than key, in key order: the way to read in pages.
func (t *Table[T]) From(r Reader, key string) iter.Seq[Row[T]] {
	return typed[T](r.scan(t.name, scan{from: key}))
}

// By yields the rows that the named index has under value, in key order. An index that the table does not have is
// a mistake in the program, and yields nothing.
func (t *Table[T]) By(r Reader, name, value string) iter.Seq[Row[T]] {
	at := slices.IndexFunc(t.indexes, func(i indexing[T]) bool { return i.name == name })
	if at < 0 {
		return func(func(Row[T]) bool) {}
	}
	values := t.indexes[at].values
	return typed[T](r.scan(t.name, scan{indexed: true, index: at, value: value, has: func(v any) bool {
		return slices.Contains(values(v.(*T)), value)
	}}))
}

// Put writes the row in the transaction. The value belongs to the DB from here on.
func (t *Table[T]) Put(tx *Tx, value *T) {
	if value == nil {
		tx.fail(fmt.Errorf("%w: put into %s: the row is nil", ErrInvalid, t.name))
		return
	}
	key := t.key(value)
	if key == "" {
		tx.fail(fmt.Errorf("%w: put into %s: the row has an empty key", ErrInvalid, t.name))
		return
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		tx.fail(fmt.Errorf("%w: put %s/%s: %w", ErrInvalid, t.name, key, err))
		return
	}
	tx.write(t.name, key, value, encoded)
}

// Delete removes the row under key in the transaction, if there is one.
func (t *Table[T]) Delete(tx *Tx, key string) { tx.write(t.name, key, nil, nil) }

// Edit is what a commit did to one row. Old is nil for a new row, New for one that is gone.
type Edit[T any] struct {
	Key      string
	Old, New *T
}

// Edits yields what the change did to the table's rows.
func (t *Table[T]) Edits(c Change) iter.Seq[Edit[T]] {
	return func(yield func(Edit[T]) bool) {
		for _, r := range c.Rows {
			if r.Table != t.name {
				continue
			}
			e := Edit[T]{Key: r.Key}
			e.Old, _ = r.Old.(*T)
			e.New, _ = r.New.(*T)
			if !yield(e) {
				return
			}
		}
	}
}

func row[T any](e *entry) Row[T] {
	return Row[T]{Key: e.key, Value: e.value.(*T), Revision: e.revision}
}

func typed[T any](entries iter.Seq[*entry]) iter.Seq[Row[T]] {
	return func(yield func(Row[T]) bool) {
		for e := range entries {
			if !yield(row[T](e)) {
				return
			}
		}
	}
}

var tableName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (t *Table[T]) faults() []error {
	var faults []error
	if !tableName.MatchString(t.name) {
		faults = append(faults, fmt.Errorf("state: table %q: name it with lower-case letters, digits and underscores, a letter first", t.name))
	}
	if t.key == nil {
		faults = append(faults, fmt.Errorf("state: table %q: the key function is nil", t.name))
	}
	seen := make(map[string]bool)
	for _, i := range t.indexes {
		if !tableName.MatchString(i.name) || seen[i.name] {
			faults = append(faults, fmt.Errorf("state: table %q: index %q: give a name of its own, in lower-case letters, digits and underscores", t.name, i.name))
		}
		seen[i.name] = true
		if i.values == nil {
			faults = append(faults, fmt.Errorf("state: table %q: index %q: the function is nil", t.name, i.name))
		}
	}
	return faults
}

func (t *Table[T]) decode(key string, value []byte) (any, error) {
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, err
	}
	if own := t.key(v); own != key {
		return nil, fmt.Errorf("the row says its key is %q", own)
	}
	return v, nil
}

func (t *Table[T]) indexCount() int { return len(t.indexes) }

func (t *Table[T]) indexValues(i int, value any) []string { return t.indexes[i].values(value.(*T)) }
