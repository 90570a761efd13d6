package stall_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
)

const ms = time.Millisecond

func TestWait(t *testing.T) {
	t.Parallel()
	type look struct {
		at       time.Duration
		ended    uint64
		inFlight bool
		late     bool
		want     stall.Verdict
	}
	const patience = 40 * ms
	tests := map[string][]look{
		"an answer in time": {{0, 0, true, false, 0}, {15 * ms, 0, true, false, 0}, {30 * ms, 1, false, false, 0}, {90 * ms, 1, false, false, 0}},
		"none in time, told once, taken back": {
			{0, 0, true, false, 0}, {15 * ms, 0, true, false, 0}, {45 * ms, 0, true, false, stall.Stalled}, {60 * ms, 0, true, false, 0},
			{75 * ms, 1, false, false, stall.TakenBack}, {90 * ms, 1, false, false, 0},
		},
		"another one ends": {{0, 3, true, false, 0}, {30 * ms, 4, true, false, 0}, {60 * ms, 4, true, false, 0}, {75 * ms, 4, true, false, stall.Stalled}},
		"given up":         {{0, 0, true, false, 0}, {45 * ms, 0, true, false, stall.Stalled}, {60 * ms, 0, false, false, stall.TakenBack}},
		"the process stood still": {
			{0, 0, true, false, 0}, {200 * ms, 0, true, true, 0}, {230 * ms, 0, true, false, 0}, {240 * ms, 0, true, false, stall.Stalled},
		},
		"it stood still when it had told": {
			{0, 0, true, false, 0}, {45 * ms, 0, true, false, stall.Stalled}, {300 * ms, 0, true, true, 0}, {400 * ms, 0, true, true, 0}, {415 * ms, 1, false, false, stall.TakenBack},
		},
	}
	for name, looks := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var w stall.Wait
			for i, l := range looks {
				if got := w.Look(time.Unix(0, 0).Add(l.at), l.ended, l.inFlight, patience, l.late); got != l.want {
					t.Errorf("look %d at %v: %d, want %d", i, l.at, got, l.want)
				}
			}
		})
	}
	var w stall.Wait
	if w.Look(time.Unix(0, 0), 0, true, 0, false); w.Look(time.Unix(100, 0), 0, true, 0, false) != stall.Nothing {
		t.Error("told although it is not known how long calls take")
	}
}

func TestPatience(t *testing.T) {
	t.Parallel()
	bound := func(i int) time.Duration { return 10 * ms << i }
	tests := []struct {
		histogram []int64
		want      time.Duration
	}{
		{[]int64{0, 0, 0, 0}, 0},
		{[]int64{7, 0, 0, 0}, 0},
		{[]int64{8, 0, 0, 0}, 30 * ms},
		{[]int64{8, 0, 1, 0}, 80 * ms},
		{[]int64{900, 0, 9, 0}, 30 * ms},
		{[]int64{990, 0, 0, 10}, 160 * ms},
		{[]int64{9990, 0, 0, 10}, 30 * ms},
		{[]int64{9990, 0, 1, 10}, 80 * ms},
		{[]int64{0, 0, 0, 100}, 160 * ms},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, stall.Patience(test.histogram, bound)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.histogram, diff)
		}
	}
}
