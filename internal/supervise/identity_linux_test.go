package supervise_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

func FuzzStat(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 77 1 1"))
	f.Add([]byte("42 (x) S"))
	f.Fuzz(func(t *testing.T, line []byte) {
		supervise.ParseStatLine(line)
	})
}

func TestStatCountsFromTheLastParenthesis(t *testing.T) {
	t.Parallel()
	pgrp, start, err := supervise.ParseStatLine([]byte("42 (a) b (c) S 1 43 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 77 1 1"))
	if err != nil || pgrp != 43 || start != 77 {
		t.Error(pgrp, start, err)
	}
}
