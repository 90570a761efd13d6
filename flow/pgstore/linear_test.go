package pgstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// ownerCall is what a member does to one execution: claims it, writes it, or leaves.
type ownerCall struct {
	what   string
	member int64
}

// ownerState is who owns the execution, and who has left, as text: states are compared.
type ownerState struct {
	owner int64
	gone  string
}

func (s ownerState) left(member int64) bool {
	return member == 0 || slices.Contains(splitIDs(s.gone), member)
}

func splitIDs(text string) (ids []int64) {
	for rest := text; rest != ""; {
		var id int64
		n, _ := fmt.Sscanf(rest, "%d,", &id)
		if n != 1 {
			return ids
		}
		ids = append(ids, id)
		rest = rest[len(fmt.Sprintf("%d,", id)):]
	}
	return ids
}

// ownerModel: who claims what is owned by a member that has not left, or writes what is another's, breaks it; so does who is refused what is
// its own.
var ownerModel = porcupine.Model{
	Init: func() any { return ownerState{} },
	Step: func(state, input, output any) (bool, any) {
		s, call, ok := state.(ownerState), input.(ownerCall), output.(bool)
		switch call.what {
		case "leave":
			s.gone += fmt.Sprintf("%d,", call.member)
			return true, s
		case "claim":
			if !ok { // others' rows, or the limit
				return true, s
			}
			legal := s.left(s.owner) && !s.left(call.member)
			s.owner = call.member
			return legal, s
		default:
			return ok == (s.owner == call.member && !s.left(call.member)), s
		}
	},
	DescribeOperation: func(input, output any) string {
		call := input.(ownerCall)
		return fmt.Sprintf("%s by %d: %v", call.what, call.member, output)
	},
}

// Claims, writes and departures of members that race are as if they came one after another.
func claimsAreLinear(t *testing.T, server *pgtest.Server) {
	const executions, members, turns = 4, 4, 25
	dsn := server.Database(t)
	stores := make([]*pgstore.Store, members)
	for i := range stores {
		stores[i] = open(t, dsn)
	}
	var batch []flow.Transition
	for i := range executions {
		batch = append(batch, running(fmt.Sprint("x", i)))
	}
	if _, err := stores[0].Commit(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var mu sync.Mutex
	operations := map[string][]porcupine.Operation{}
	told := func(client int, ids []string, call ownerCall, from time.Duration, out func(id string) bool) {
		to := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			operations[id] = append(operations[id], porcupine.Operation{
				ClientId: client, Input: call, Output: out(id), Call: int64(from), Return: int64(to),
			})
		}
	}
	all := []string{"x0", "x1", "x2", "x3"}
	var group sync.WaitGroup
	for client, s := range stores {
		random := rand.New(rand.NewPCG(uint64(client), 7))
		group.Go(func() {
			var member int64
			for range turns {
				if member == 0 {
					var err error
					if member, err = s.Join(t.Context(), fmt.Sprint(client), time.Hour); err != nil {
						t.Error(err)
						return
					}
				}
				from := time.Since(began)
				switch dice := random.IntN(10); {
				case dice < 4:
					rows, err := s.Claim(t.Context(), member, 1+random.IntN(executions))
					if err != nil {
						t.Error(err)
					}
					told(client, all, ownerCall{"claim", member}, from, func(id string) bool { return slices.ContainsFunc(rows, func(r flow.Row) bool { return r.ID == id }) })
				case dice < 8:
					id := all[random.IntN(executions)]
					row, err := s.Get(t.Context(), id)
					if err != nil {
						t.Error(err)
						return
					}
					next := running(id)
					next.Prev, next.Row.Seq, next.Record.Seq, next.Row.Owner = row.Seq, row.Seq+1, row.Seq+1, member
					from = time.Since(began)
					fates, err := s.Commit(t.Context(), []flow.Transition{next})
					if err != nil {
						t.Error(err)
						return
					}
					if errors.Is(fates[0], flow.ErrStale) {
						continue // another moved it between the read and the write: it says nothing about owners
					}
					told(client, []string{id}, ownerCall{"write", member}, from, func(string) bool { return fates[0] == nil })
				default:
					if err := s.Leave(t.Context(), member); err != nil {
						t.Error(err)
					}
					told(client, all, ownerCall{"leave", member}, from, func(string) bool { return true })
					member = 0
				}
			}
		})
	}
	group.Wait()
	for id, history := range operations {
		if result := porcupine.CheckOperationsTimeout(ownerModel, history, 30*time.Second); result != porcupine.Ok {
			t.Errorf("%s: %d operations are not linearizable: %s", id, len(history), result)
		}
	}
}

// The model tells apart what may be and what may not.
func TestOwnerModel(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		calls []ownerCall
		out   []bool
		want  bool
	}{
		"claimed, written, left, claimed": {[]ownerCall{{"claim", 1}, {"write", 1}, {"leave", 1}, {"claim", 2}, {"write", 1}}, []bool{true, true, true, true, false}, true},
		"claimed from who lives":          {[]ownerCall{{"claim", 1}, {"claim", 2}}, []bool{true, true}, false},
		"written late":                    {[]ownerCall{{"claim", 1}, {"leave", 1}, {"write", 1}}, []bool{true, true, true}, false},
		"claimed by who has left":         {[]ownerCall{{"leave", 12}, {"claim", 12}}, []bool{true, true}, false},
		"refused what is its own":         {[]ownerCall{{"claim", 1}, {"write", 1}}, []bool{true, false}, false},
	} {
		var history []porcupine.Operation
		for i, call := range one.calls {
			history = append(history, porcupine.Operation{Input: call, Output: one.out[i], Call: int64(2 * i), Return: int64(2*i + 1)})
		}
		if got := porcupine.CheckOperations(ownerModel, history); got != one.want {
			t.Errorf("%s: %v, want %v", name, got, one.want)
		}
	}
}
