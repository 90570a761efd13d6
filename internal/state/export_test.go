package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	r, err := newReplica(byName)
	if err != nil {
		panic(err)
	}
	r.plantedBug = bug
	return &Replica{r}
}

// Apply takes a commit, and returns the changed rows.
func (r *Replica) Apply(e store.Event) []RowChange { return r.r.apply(e) }

// Load takes a listing.
func (r *Replica) Load(records []store.Record, revision int64) { r.r.load(records, revision) }

// Snapshot returns the replica as it is.
func (r *Replica) Snapshot() *Snapshot { return &Snapshot{r.r.view()} }

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
	for chunk, err := range tx.chunks() {
		if err != nil {
			panic(err)
		}
		chunks = append(chunks, []store.Op{store.Put(stageKey(id, chunkName(len(chunks))), chunk)})
	}
	return chunks, []store.Op{store.Put(generationKey, generationJSON(id, len(chunks), 0)).At(guard)}
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
