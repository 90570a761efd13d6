package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// RegistersConfig says how to exercise a store for Registers.
type RegistersConfig struct {
	Clients int // that work at once; 4 by default
	Ops     int // of each client; 60 by default
	Keys    int // that they share; 3 by default
	// Disturb, if not nil, runs beside the clients, who work on until it has returned as well.
	Disturb func(ctx context.Context)
}

// cas is what a client asks of one key: a read, or a put under the condition of a revision.
type cas struct {
	key   string
	write bool
	value string
	at    int64
}

// casResult is the answer. For a write that was not answered, unknown.
type casResult struct {
	ok, unknown bool
	value       string // read
	revision    int64  // of the key as read or written; 0 if absent
}

// Registers lets clients read, compare and set a few keys over the stores (each client uses one of them in turn), and
// fails the test if what they saw is not linearizable: if there is no order of the operations, each between its
// call and its return, in which every answer is right. A write without an answer may have happened or not.
func Registers(t *testing.T, ctx context.Context, stores []store.Store, config RegistersConfig) {
	t.Helper()
	config.Clients, config.Ops, config.Keys = or(config.Clients, 4), or(config.Ops, 60), or(config.Keys, 3)
	disturbed := make(chan struct{})
	go func() {
		defer close(disturbed)
		if config.Disturb != nil {
			config.Disturb(ctx)
		}
	}()
	histories := make([][]porcupine.Operation, config.Clients)
	var clients sync.WaitGroup
	origin := time.Now()
	for c := range config.Clients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 2))
			known := make(map[string]int64)
			for i := 0; ctx.Err() == nil && (i < config.Ops || !closed(disturbed)); i++ {
				in := cas{key: fmt.Sprintf("r/%d", random.IntN(config.Keys)), value: fmt.Sprintf("%d-%d", c, i)}
				in.at, in.write = known[in.key], random.IntN(2) == 0
				call := time.Since(origin)
				out, told := ask(ctx, stores[c%len(stores)], in)
				back := int64(time.Since(origin))
				if !told {
					continue // a read without an answer says nothing
				}
				if out.unknown {
					back = math.MaxInt64
				} else if out.revision >= 0 {
					known[in.key] = out.revision
				}
				histories[c] = append(histories[c], porcupine.Operation{ClientId: c, Input: in, Call: int64(call), Output: out, Return: back})
			}
		})
	}
	clients.Wait()
	<-disturbed
	var history []porcupine.Operation
	writes := 0
	for _, h := range histories {
		history = append(history, h...)
		for _, op := range h {
			if in, out := op.Input.(cas), op.Output.(casResult); in.write && out.ok {
				writes++
			}
		}
	}
	if writes == 0 {
		t.Error("no compare-and-set succeeded, so that nothing was checked")
	}
	model := registerModel()
	if result := porcupine.CheckOperationsTimeout(model.ToModel(), history, patience); result != porcupine.Ok {
		t.Errorf("a history of %d operations, %d of them writes: %s, want a linearizable one", len(history), writes, result)
	}
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ask performs one operation; told is false for a read that failed.
func ask(ctx context.Context, s store.Store, in cas) (out casResult, told bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if !in.write {
		records, _, err := s.List(ctx, in.key)
		if err != nil {
			return casResult{}, false
		}
		for _, r := range records {
			if r.Key == in.key {
				return casResult{ok: true, value: string(r.Value), revision: r.Revision}, true
			}
		}
		return casResult{ok: true}, true
	}
	revision, err := s.Commit(ctx, put(in.key, in.value).At(in.at))
	var conflict *store.ConflictError
	switch {
	case err == nil:
		return casResult{ok: true, revision: revision}, true
	case errors.As(err, &conflict):
		return casResult{revision: conflict.Have}, true
	default:
		return casResult{unknown: true}, true
	}
}

// register is the state of one key in the model. The revision of an unanswered write is unknown (-1) until a read
// tells it.
type register struct {
	value    string
	revision int64
}

func registerModel() porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := make(map[string][]porcupine.Operation)
			for _, op := range history {
				key := op.Input.(cas).key
				byKey[key] = append(byKey[key], op)
			}
			var out [][]porcupine.Operation
			for _, ops := range byKey {
				out = append(out, ops)
			}
			return out
		},
		Init: func() []any { return []any{register{}} },
		Step: func(state, input, output any) []any {
			return stepRegister(state.(register), input.(cas), output.(casResult))
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

func stepRegister(s register, in cas, out casResult) []any {
	matches := s.revision == in.at || s.revision < 0 && in.at > 0
	switch {
	case !in.write:
		if out.value == s.value && (out.revision == s.revision || s.revision < 0 && out.revision > 0) {
			return []any{register{out.value, out.revision}}
		}
	case out.unknown:
		if matches {
			return []any{s, register{in.value, -1}}
		}
		return []any{s}
	case out.ok:
		if matches && out.revision > s.revision {
			return []any{register{in.value, out.revision}}
		}
	default: // refused, because the key is at out.revision
		if s.revision != in.at && (out.revision == s.revision || s.revision < 0 || out.revision < 0) {
			return []any{s}
		}
	}
	return nil
}
