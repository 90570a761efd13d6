package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// access is what a client asks of an execution: to move it on from an event, or to read where it stands.
type access struct {
	id   string
	from int64 // 0 creates it
	to   int64 // 0 reads
	via  string
}

// outcome is the answer: where it stands (0: nowhere), or whether it was moved.
type outcome struct {
	seq   int64
	moved bool
}

// register is an execution as a machine that moves in whole steps: what a store must look like from outside, however many write and read at a time.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(access).id
			of[id] = append(of[id], op)
		}
		var out [][]porcupine.Operation
		for _, part := range of {
			out = append(out, part)
		}
		return out
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		at, in, out := state.(int64), input.(access), output.(outcome)
		switch {
		case in.to == 0:
			return out.seq == at, at
		case in.from == at:
			return out.moved, in.to
		default:
			return !out.moved, at
		}
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(access), output.(outcome)
		if in.to == 0 {
			return fmt.Sprintf("%s of %s: %d", in.via, in.id, out.seq)
		}
		return fmt.Sprintf("%s from %d to %d: %t", in.id, in.from, in.to, out.moved)
	},
}

// linearizable has clients claim and move the same executions, each commit holding several, while others read rows, lists and histories: whatever each saw can be put in
// one order. So no two clients win the same claim, and nobody reads what was not yet, or no longer, there.
func linearizable(t *testing.T, s flow.Store) {
	const clients, turns, executions = 6, 25, 3
	var mu sync.Mutex
	var history []porcupine.Operation
	began := time.Now()
	record := func(client int, called time.Duration, in []access, out []outcome) {
		returned := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		for i := range in {
			history = append(history, porcupine.Operation{ClientId: client, Input: in[i], Output: out[i], Call: int64(called), Return: int64(returned)})
		}
	}
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for turn := range turns {
				if err := visit(t, s, client, turn, executions, func() time.Duration { return time.Since(began) }, record); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if result := porcupine.CheckOperationsTimeout(register, history, 20*time.Second); result == porcupine.Illegal {
		t.Fatal("what clients saw cannot be put in one order")
	} else if result == porcupine.Unknown {
		t.Log("porcupine did not finish")
	}
}

// visit is one turn of a client.
func visit(t *testing.T, s flow.Store, client, turn, executions int, clock func() time.Duration, record func(int, time.Duration, []access, []outcome)) error {
	var in []access
	var out []outcome
	var batch []flow.Transition
	for n := range executions {
		id := fmt.Sprint("x", n)
		called := clock()
		seq, via, err := read(t, s, id, client+turn)
		if err != nil {
			return err
		}
		record(client, called, []access{{id: id, via: via}}, []outcome{{seq: seq}})
		next := create(id)
		if seq > 0 {
			next = follow(flow.Transition{Row: create(id).Row}, flow.Running, flow.Wake{Kind: flow.WakeLease})
			next.Prev, next.Row.Seq, next.Record.Seq = seq, seq+1, seq+1
		}
		batch = append(batch, next)
		in = append(in, access{id: id, from: next.Prev, to: next.Row.Seq})
	}
	called := clock()
	fates, err := s.Commit(t.Context(), batch)
	if err != nil {
		return err
	}
	for i, fate := range fates {
		if fate != nil && !errors.Is(fate, flow.ErrStale) && !errors.Is(fate, flow.ErrExists) {
			return fmt.Errorf("fate of %v: %w", in[i], fate)
		}
		out = append(out, outcome{moved: fate == nil})
	}
	record(client, called, in, out)
	return nil
}

// read asks where an execution stands, by one of the ways there are.
func read(t *testing.T, s flow.Store, id string, way int) (seq int64, via string, err error) {
	switch way % 3 {
	case 0:
		row, err := s.Get(t.Context(), id)
		if errors.Is(err, flow.ErrNotFound) {
			err = nil
		}
		return row.Seq, "row", err
	case 1:
		rows, err := s.List(t.Context(), flow.Filter{Open: true})
		for _, row := range rows {
			if row.ID == id {
				return row.Seq, "list", err
			}
		}
		return 0, "list", err
	default:
		records, err := s.History(t.Context(), id, 0, 0)
		if len(records) == 0 {
			return 0, "history", err
		}
		seq := records[len(records)-1].Seq
		if seq == 1 {
			seq = create(id).Row.Seq // its first record holds two events
		}
		return seq, "history", err
	}
}
