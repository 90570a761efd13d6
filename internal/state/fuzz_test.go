package state_test

import (
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// FuzzReplica feeds records that no DB has written: whatever stands in the store, the replica does not
// panic, following or listing. Each line is "key value"; a line without a value deletes; an empty line commits.
func FuzzReplica(f *testing.F) {
	f.Add("device/a {\"name\":\"a\"}\n\ndevice/a\n")
	f.Add(".stage/g/000000 [{\"t\":\"device\",\"k\":\"a\",\"b\":0,\"v\":{\"name\":\"a\"}}]\n\n.generation {\"id\":\"g\",\"chunks\":1}\n\n.generation {\"id\":\"g\",\"chunks\":1,\"folding\":2}\n")
	f.Add("device/a \x011\n{\"name\":\"a\"}\n\ndevice/a \x01x\n")
	f.Add(".generation []\n\n.stage/x null\n\n.stage// [{}]\n")
	f.Fuzz(func(t *testing.T, script string) {
		w := newTables()
		memory := store.NewMemory()
		replica := state.NewReplica("", w.devices, w.modules)
		seen := int64(0)
		for block := range strings.SplitSeq(script, "\n\n") {
			var ops []store.Op
			for line := range strings.SplitSeq(block, "\n") {
				if key, value, put := strings.Cut(line, " "); put {
					ops = append(ops, store.Put(key, []byte(value)))
				} else {
					ops = append(ops, store.Delete(key))
				}
			}
			revision, err := memory.Commit(t.Context(), ops...)
			if err != nil || revision == seen {
				continue
			}
			for event, err := range memory.Watch(t.Context(), "", seen) {
				if err != nil {
					t.Fatal(err)
				}
				replica.Apply(event)
				break
			}
			seen = revision
		}
		records, revision, err := memory.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		listing := state.NewReplica("", w.devices, w.modules)
		listing.Load(records, revision)
		replica.Rows(show)
		listing.Rows(show)
	})
}

func show(any) string { return "" }
