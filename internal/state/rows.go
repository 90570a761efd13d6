package state

import "slices"

// rows is one table of a replica: its rows by key, and by each of its indexes.
type rows struct {
	schema  Schema
	primary *index
	by      []*index // in the order of the schema's indexes
}

func newRows(schema Schema) *rows {
	r := &rows{schema: schema, primary: newIndex()}
	for range schema.indexNames() {
		r.by = append(r.by, newIndex())
	}
	return r
}

// put writes a row in the place of old, which is nil if there was none.
func (r *rows) put(old, e *entry) {
	r.primary.set(e.key, e)
	for i, x := range r.by {
		now := r.schema.indexValues(i, e.value)
		if old != nil {
			for _, value := range r.schema.indexValues(i, old.value) {
				if !slices.Contains(now, value) {
					x.remove(value, e.key)
				}
			}
		}
		for _, value := range now {
			x.set(value, e)
		}
	}
}

func (r *rows) remove(old *entry) {
	r.primary.remove(old.key, old.key)
	for i, x := range r.by {
		for _, value := range r.schema.indexValues(i, old.value) {
			x.remove(value, old.key)
		}
	}
}

// frozen is a table at one moment; it never changes.
type frozen struct {
	schema  Schema
	primary index
	by      []index
}

func (r *rows) freeze() frozen {
	f := frozen{schema: r.schema, primary: r.primary.freeze(), by: make([]index, len(r.by))}
	for i, x := range r.by {
		f.by[i] = x.freeze()
	}
	return f
}
