//go:build linux

package e2e_test

import (
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// A ledger that finds nothing proves nothing: each thing that must not happen is shown to it.
// I9: after a restart, state equals what was stored before.
func TestLedgerFindsWhatWasTakenBack(t *testing.T) {
	t.Parallel()
	undone := time.Unix(1, 0)
	type told struct {
		execution flow.Execution
		change    center.Change
		entry     records.Entry
	}
	good := told{flow.Execution{ID: "e", Seq: 7, State: flow.Failed}, center.Change{Key: "c", Undone: &undone}, records.Entry{ID: 1, Actor: "gray"}}
	for name, test := range map[string]struct {
		then   func(*told)
		faults int
	}{
		"the same":           {func(*told) {}, 0},
		"progress":           {func(n *told) { n.execution.Seq = 8 }, 0},
		"a lost event":       {func(n *told) { n.execution.Seq = 6 }, 1},
		"an end undone":      {func(n *told) { n.execution.State = flow.Running }, 1},
		"a change stands":    {func(n *told) { n.change.Undone = nil }, 1},
		"an audit id reused": {func(n *told) { n.entry.Actor = "scale" }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &ledger{executions: make(map[string]flow.Execution), changes: make(map[string]center.Change), audit: make(map[int64]records.Entry)}
			next := good
			test.then(&next)
			for _, n := range []told{good, next} {
				l.take([]flow.Execution{n.execution}, []center.Change{n.change}, []records.Entry{n.entry})
			}
			if len(l.faults) != test.faults {
				t.Errorf("faults %v, want %d", l.faults, test.faults)
			}
		})
	}
}
