package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/backoff"
)

func TestWaitsDoubleUpToMostAndStartOver(t *testing.T) {
	t.Parallel()
	b := backoff.New(backoff.Config{First: time.Second, Most: 5 * time.Second})
	var got []time.Duration
	for range 5 {
		got = append(got, b.Next())
	}
	b.Reset()
	got = append(got, b.Next())
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second, time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestJitterStaysInItsBounds(t *testing.T) {
	t.Parallel()
	b := backoff.New(backoff.Config{First: time.Second, Most: time.Second, Jitter: 0.5})
	differ := false
	last := time.Duration(0)
	for range 1000 {
		d := b.Next()
		if d < 500*time.Millisecond || d > 1500*time.Millisecond {
			t.Fatalf("a wait of %s, want 0.5s to 1.5s", d)
		}
		differ = differ || last != 0 && d != last
		last = d
	}
	if !differ {
		t.Error("all waits are alike")
	}
}

// It never ends by itself, however long the trouble lasts.
func TestItNeverGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := backoff.New(backoff.Config{First: time.Minute, Most: time.Hour})
		for range 1000 {
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if d := b.Next(); d != time.Hour {
			t.Errorf("after a thousand hours it waits %s", d)
		}
	})
}

func TestTheEndOfTheContextEndsAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		b := backoff.New(backoff.Config{First: time.Hour, Most: time.Hour})
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Wait returned %v after %s", err, time.Since(start))
		}
	})
}
