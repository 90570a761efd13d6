package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Encode returns a row as its record.
func (t *Table[T]) Encode(tb testing.TB, v *T) (string, []byte) {
	encoded, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return t.name + "/" + t.key(v), encoded
}

// Replica opens the pure core to the simulation. Bug plants a fault in it: "" is none.
type Replica struct{ r *replica }

// NewReplica returns an empty replica of the tables.
func NewReplica(bug string, tables ...Schema) *Replica {
	byName := map[string]Schema{}
	for _, t := range tables {
		byName[t.Name()] = t
	}
	r := newReplica(byName)
	r.plantedBug = bug
	return &Replica{r}
}

// Apply takes a commit, and returns the changed rows.
func (r *Replica) Apply(e store.Event) []RowChange { return r.r.apply(e) }

// Load takes a listing.
func (r *Replica) Load(records []store.Record, revision int64) { r.r.load(records, revision) }

// Guard returns the condition that a writer puts on the generation's record, and whether one is open.
func (r *Replica) Guard() (int64, bool) { return r.r.guard, r.r.open != nil }

// Record returns the revision of a row's record.
func (r *Replica) Record(table, key string) int64 {
	return r.r.recordOf(name{table, key})
}

// Rows returns what readers see, in a form to compare: by key, with revision and value.
func (r *Replica) Rows(show func(any) string) []string {
	var out []string
	v := r.r.view()
	for _, table := range slices.Sorted(maps.Keys(r.r.tables)) {
		for e := range v.scan(table, scan{}) {
			out = append(out, fmt.Sprintf("%s/%s@%d %s", table, e.key, e.revision, show(e.value)))
		}
	}
	return out
}

// Index returns the keys under an index's value.
func (r *Replica) Index(table, index, value string) string {
	var out []string
	for e := range r.r.view().scan(table, scan{indexed: true, index: slices.Index(r.r.tables[table].schema.indexNames(), index), value: value}) {
		out = append(out, e.key)
	}
	return strings.Join(out, " ")
}

// StageOps returns what a stager commits: the chunks, and the record that publishes them if guard allows.
func StageOps(id string, guard int64, rows map[string][3]string, base func(key string) int64) (chunks [][]store.Op, publish []store.Op) {
	tx := newTx(nil)
	for key, row := range rows {
		n := name{row[0], key}
		tx.reads[n] = base(key)
		switch row[1] {
		case "put":
			tx.writes[n] = &write{value: row, encoded: []byte(row[2])}
		case "delete":
			tx.writes[n] = &write{}
		}
	}
	encoded, err := tx.chunks()
	if err != nil {
		panic(err)
	}
	for i, c := range encoded {
		chunks = append(chunks, []store.Op{store.Put(stageKey(id, chunkName(i)), c)})
	}
	return chunks, []store.Op{store.Put(generationKey, generationJSON(id, len(encoded), 0)).At(guard)}
}

// FoldOps returns the commits that write an open generation out, in order; each is conditional on the one before.
func (r *Replica) FoldOps() []func(guard int64) []store.Op {
	g := r.r.open
	if g == nil {
		return nil
	}
	var out []func(int64) []store.Op
	if g.valid {
		out = append(out, func(guard int64) []store.Op {
			return []store.Op{store.Put(generationKey, generationJSON(g.id, g.chunks, g.published)).At(guard)}
		})
		for _, n := range slices.SortedFunc(maps.Keys(g.rows), compareNames) {
			row := g.rows[n]
			if !row.Delete && row.Value == nil {
				continue
			}
			out = append(out, func(guard int64) []store.Op {
				op := store.Delete(n.String())
				if !row.Delete {
					op = store.Put(n.String(), wrap(g.published, row.Value))
				}
				return []store.Op{store.Check(generationKey, guard), op}
			})
		}
	}
	return append(out, func(guard int64) []store.Op { return []store.Op{store.Delete(generationKey).At(guard)} })
}

// Ordered is the ordered set beneath the tables.
type Ordered struct{ x *index }

// NewOrdered returns an empty one.
func NewOrdered() Ordered { return Ordered{newIndex()} }

// Set, Remove and Freeze do as in the index; rows are told apart by their revision.
func (i Ordered) Set(at, key string, revision int64) {
	i.x.set(at, &entry{key: key, revision: revision})
}
func (i Ordered) Remove(at, key string) { i.x.remove(at, key) }
func (i Ordered) Freeze() Ordered       { f := i.x.freeze(); return Ordered{&f} }

// From returns up to n rows from (at, key) on, as "at/key=revision".
func (i Ordered) From(at, key string, n int) []string {
	out := []string{}
	i.x.ascend(at, key, func(it item) bool {
		if len(out) < n {
			out = append(out, fmt.Sprintf("%s/%s=%d", it.at, it.row.key, it.row.revision))
		}
		return len(out) < n
	})
	return out
}

// Get returns the revision of a row, or 0.
func (i Ordered) Get(at, key string) int64 {
	if e := i.x.get(at, key); e != nil {
		return e.revision
	}
	return 0
}

// Check returns what is wrong with the tree's form.
func (i Ordered) Check() error {
	count := 0
	var walk func(n *node) (int, error)
	walk = func(n *node) (depth int, err error) {
		count += len(n.items)
		if len(n.items) > maxItems || len(n.items) == 0 {
			return 0, fmt.Errorf("a node of %d items", len(n.items))
		}
		if n.children == nil {
			return 1, nil
		}
		if len(n.children) != len(n.items)+1 {
			return 0, fmt.Errorf("a node of %d items has %d children", len(n.items), len(n.children))
		}
		for _, c := range n.children {
			d, err := walk(c)
			if err != nil {
				return 0, err
			}
			if depth != 0 && d != depth {
				return 0, fmt.Errorf("children of depths %d and %d", depth, d)
			}
			depth = d
		}
		return depth + 1, nil
	}
	if i.x.root != nil {
		if _, err := walk(i.x.root); err != nil {
			return err
		}
	}
	if count != i.x.size {
		return fmt.Errorf("%d items, size says %d", count, i.x.size)
	}
	return nil
}
