package cmdb_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

type poolCall struct {
	owner   string
	key     string
	release string // a device; "" is an acquire of one
}

// poolState is which owner holds each of four devices.
type poolState struct{ holder [4]string }

// poolModel is the pool as one thing that does one call at a time.
var poolModel = porcupine.Model{
	Init: func() any { return poolState{} },
	Step: func(state, input, output any) (bool, any) {
		s, call, got := state.(poolState), input.(poolCall), output.(string)
		if call.release != "" {
			i, _ := strconv.Atoi(call.release[1:])
			if s.holder[i-1] == call.owner {
				s.holder[i-1] = ""
			}
			return true, s
		}
		if got == "none" {
			for _, holder := range s.holder {
				if holder == "" {
					return false, s
				}
			}
			return true, s
		}
		i, _ := strconv.Atoi(got[1:])
		if s.holder[i-1] == call.owner { // the same key again
			return true, s
		}
		if s.holder[i-1] != "" {
			return false, s
		}
		s.holder[i-1] = call.owner
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// Acquire and Release behave as if they happened one after another, whichever replica they go through.
func TestAcquireIsLinearizable(t *testing.T) {
	t.Parallel()
	store := memstore.New()
	dbs := []*cmdb.DB{open(t, store), open(t, store)}
	apply(t, dbs[0], cmdb.Dir("testdata/site"))
	var (
		mu         sync.Mutex
		operations []porcupine.Operation
		wait       sync.WaitGroup
		ticks      atomic.Int64
	)
	record := func(client int, call poolCall, do func() string) string {
		began := ticks.Add(1)
		out := do()
		ended := ticks.Add(1)
		mu.Lock()
		defer mu.Unlock()
		operations = append(operations, porcupine.Operation{ClientId: client, Input: call, Output: out, Call: began, Return: ended})
		return out
	}
	for w := range 6 {
		wait.Go(func() {
			for i := range 12 {
				owner := fmt.Sprintf("o%d-%d", w, i) // one acquisition each, so that a holder tells it
				acquire := func(db *cmdb.DB) string {
					return record(w, poolCall{owner: owner, key: "k"}, func() string {
						got, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: owner, Key: "k", Count: 1})
						if errors.Is(err, cmdb.ErrNoDevice) {
							return "none"
						}
						if err != nil {
							t.Error(err)
							return "none"
						}
						return got[0].Name
					})
				}
				device := acquire(dbs[w%2])
				if device == "none" {
					continue
				}
				if again := acquire(dbs[(w+1)%2]); again != device {
					t.Errorf("the same key got %s and %s", device, again)
				}
				record(w, poolCall{owner: owner, release: device}, func() string {
					if _, err := dbs[i%2].Release(t.Context(), owner, []string{device}); err != nil {
						t.Error(err)
					}
					return ""
				})
			}
		})
	}
	wait.Wait()
	if result := porcupine.CheckOperationsTimeout(poolModel, operations, 20*time.Second); result != porcupine.Ok {
		t.Errorf("%d operations: %s", len(operations), result)
	}
}
