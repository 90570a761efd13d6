package state_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// The tables against a map that is sorted and searched by hand: keys and values that are prefixes of one another and
// hold the bytes that end a value, rows with several values, the same one twice, or none, and snapshots that must not
// change while rows come, change and go.
func TestTablesAgainstAMap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 3))
		word := func(least int) string {
			var out strings.Builder
			for range least + random.IntN(4) {
				out.WriteRune([]rune("\x00\x01a/世")[random.IntN(5)])
			}
			return out.String()
		}
		w := newTables()
		replica := state.NewReplica("", w.devices, w.modules)
		model := map[string]device{}
		var snapshots []*state.Snapshot
		var then [][]string
		for revision := int64(1); len(model) > 0 || revision < 300; revision++ {
			event := store.Event{Revision: revision}
			edited := map[string]bool{}
			for range 1 + random.IntN(8) {
				d := device{Name: word(1), Module: word(0)}
				for range random.IntN(4) {
					d.Tags = append(d.Tags, word(0))
				}
				if growing := revision < 150; growing != (random.IntN(4) == 0) && revision < 300 {
					value, err := json.Marshal(d)
					if err != nil {
						t.Fatal(err)
					}
					if !edited[d.Name] {
						event.Puts = append(event.Puts, store.Record{Key: "device/" + d.Name, Value: value, Revision: revision})
						model[d.Name], edited[d.Name] = d, true
					}
					continue
				}
				for name := range model {
					if !edited[name] {
						event.Deletes, edited[name] = append(event.Deletes, "device/"+name), true
						delete(model, name)
						break
					}
				}
			}
			replica.Apply(event)
			snap := replica.Snapshot()
			from, module, tag := word(0), word(0), word(0)
			for about, of := range map[string]struct {
				got  iter.Seq[state.Row[device]]
				want func(device) bool
			}{
				"all":                            {w.devices.All(snap), func(device) bool { return true }},
				fmt.Sprintf("from %q", from):     {w.devices.From(snap, from), func(d device) bool { return d.Name >= from }},
				fmt.Sprintf("prefix %q", from):   {w.devices.Prefix(snap, from), func(d device) bool { return strings.HasPrefix(d.Name, from) }},
				fmt.Sprintf("module %q", module): {w.devices.By(snap, "module", module), func(d device) bool { return module != "" && d.Module == module }},
				fmt.Sprintf("tag %q", tag):       {w.devices.By(snap, "tag", tag), func(d device) bool { return slices.Contains(d.Tags, tag) }},
			} {
				want := []string{}
				for _, name := range slices.Sorted(maps.Keys(model)) {
					if of.want(model[name]) {
						want = append(want, fmt.Sprintf("%+v", model[name]))
					}
				}
				if got := rows(of.got); !slices.Equal(want, got) {
					t.Fatalf("seed %d, revision %d, %s:\n%s", seed, revision, about, cmp.Diff(want, got))
				}
			}
			for name, want := range model {
				if got, ok := w.devices.Get(snap, name); !ok || !cmp.Equal(want, *got.Value) {
					t.Fatalf("seed %d, revision %d: %q is %+v, want %+v", seed, revision, name, got.Value, want)
				}
			}
			if revision%25 == 0 {
				snapshots, then = append(snapshots, snap), append(then, rows(w.devices.All(snap)))
			}
		}
		for i, snap := range snapshots {
			if diff := cmp.Diff(then[i], rows(w.devices.All(snap))); diff != "" {
				t.Fatalf("seed %d: the snapshot of revision %d is not what it was:\n%s", seed, snap.Revision(), diff)
			}
		}
	}
}

func rows(found iter.Seq[state.Row[device]]) []string {
	out := []string{}
	for row := range found {
		out = append(out, fmt.Sprintf("%+v", *row.Value))
	}
	return out
}
