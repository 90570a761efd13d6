package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

func TestLimits(t *testing.T) {
	got, err := limits([]string{"tool:package.install=8", "tool:package.install=0.5/s", "device=2", "module=4", "open=50000"})
	want := flow.Limits{Tools: map[string]flow.ToolLimit{"package.install": {Concurrency: 8, Rate: 0.5}}, PerDevice: 2, PerModule: 4, Open: 50_000}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, text := range []string{"", "device", "device=0", "device=x", "device=5/s", "tool:=3", "tool:a=0/s", "tool:a=x/s", "other=3"} {
		if _, err := limits([]string{text}); err == nil {
			t.Errorf("--limit %q is taken", text)
		}
	}
}

func TestInstant(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"2h": now.Add(2 * time.Hour), "2026-01-02T08:00:00+08:00": now.Add(24 * time.Hour)} {
		if got, err := instant(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	if _, err := instant("tomorrow", now); err == nil {
		t.Error("tomorrow is taken")
	}
}
