package flowbench_test

import (
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// PostgreSQL is measured in schemas that are gone afterwards.
func TestPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	place, err := flowbench.NewPlace(t.Context(), t.TempDir(), server.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := place.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if logged, events, err := place.Log(t.Context(), 64, time.Second/4); err != nil || logged < events || events <= 0 {
		t.Errorf("log: %.0f B a step, %.0f of them events, %v", logged, events, err)
	} else {
		t.Logf("log: %.0f B a step, %.0f of them events", logged, events)
	}
	name, err := place.Store(t.Context(), "load")
	if err != nil {
		t.Fatal(err)
	}
	store, err := flowbench.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, inflight := range []int{1, 64} {
		bare, err := place.Bare(t.Context(), inflight, time.Second/4)
		if err != nil {
			t.Fatal(err)
		}
		load, err := flowbench.Run(t.Context(), store, inflight, time.Second/4)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d in flight: %.0f steps/s (bare: %.0f), %s of CPU a step (bare: %s), %.3f commits a step, p50 %s p99 %s, a start within %+v commits",
			inflight, load.Rate, bare.Rate, load.CPU, bare.CPU, load.Commits, load.P50, load.P99, load.Start)
	}
	calm, err := place.Store(t.Context(), "calm")
	if err != nil {
		t.Fatal(err)
	}
	disturbed, err := place.Store(t.Context(), "killed")
	if err != nil {
		t.Fatal(err)
	}
	killed, err := flowbench.Kill(t.Context(), calm, disturbed, 64, 5*time.Millisecond)
	if err != nil || killed.Again > 0 {
		t.Fatalf("%+v, %v", killed, err)
	}
	t.Logf("kill: first step after %s (a new process: %s), all after %s (undisturbed rest: %s), %d in doubt", killed.First, killed.Bare, killed.All, killed.Rest, killed.Doubt)
	shared, err := place.Store(t.Context(), "takeover")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := flowbench.Takeover(t.Context(), shared, 16, 100*time.Millisecond)
	if err != nil || taken.First <= 0 || taken.All < taken.First {
		t.Fatalf("%+v, %v", taken, err)
	}
	t.Logf("takeover: first step after %s, all after %s", taken.First, taken.All)
}
