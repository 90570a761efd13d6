package state_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/state"
)

// The index against a sorted list, through growth in order and at random, deletes down to nothing, and freezes that
// must not change.
func TestIndexIsASortedSet(t *testing.T) {
	t.Parallel()
	type place struct{ at, key string }
	list := func(model map[place]int64) []string {
		places := make([]place, 0, len(model))
		for p := range model {
			places = append(places, p)
		}
		slices.SortFunc(places, func(a, b place) int {
			if a.at != b.at {
				return strings.Compare(a.at, b.at)
			}
			return strings.Compare(a.key, b.key)
		})
		out := []string{}
		for _, p := range places {
			out = append(out, fmt.Sprintf("%s/%s=%d", p.at, p.key, model[p]))
		}
		return out
	}
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 3))
		model, index := make(map[place]int64), state.NewOrdered()
		var frozen []state.Ordered
		var then [][]string
		for step := range int64(6000) {
			p := place{fmt.Sprintf("v%02d", random.IntN(40)), fmt.Sprintf("k%02d", random.IntN(60))}
			growing := step < 2500
			switch {
			case step < 300: // in order
				p = place{"a", fmt.Sprintf("%05d", step)}
				fallthrough
			case growing && random.IntN(4) > 0, !growing && random.IntN(4) == 0:
				model[p] = step + 1
				index.Set(p.at, p.key, step+1)
			default:
				if !growing && len(model) > 0 && random.IntN(2) == 0 {
					for p = range model {
						break
					}
				}
				delete(model, p)
				index.Remove(p.at, p.key)
			}
			if index.Get(p.at, p.key) != model[p] {
				t.Fatalf("seed %d, step %d: %v is at %d, want %d", seed, step, p, index.Get(p.at, p.key), model[p])
			}
			if step%500 == 0 {
				frozen, then = append(frozen, index.Freeze()), append(then, list(model))
				if err := index.Check(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
				all := list(model)
				from, _ := slices.BinarySearchFunc(all, p, func(s string, p place) int { return strings.Compare(s, p.at+"/"+p.key) })
				if diff := cmp.Diff(all[from:min(from+7, len(all))], index.From(p.at, p.key, 7)); diff != "" && p.at != "a" {
					t.Errorf("seed %d, step %d: from %v: %s", seed, step, p, diff)
				}
			}
		}
		frozen, then = append(frozen, index), append(then, list(model))
		for i := range frozen {
			if got := frozen[i].From("", "", 1<<30); !slices.Equal(then[i], got) {
				t.Fatalf("seed %d: freeze %d differs from what it was:\n%s", seed, i, cmp.Diff(then[i], got))
			}
		}
		for p := range model {
			index.Remove(p.at, p.key)
		}
		if err := index.Check(); err != nil || len(index.From("", "", 1)) != 0 {
			t.Errorf("seed %d: emptied: %v, %v", seed, err, index.From("", "", 9))
		}
	}
}
