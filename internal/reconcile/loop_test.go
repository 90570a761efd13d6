package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

// bench runs a loop in a bubble and notes when passes began.
type bench struct {
	*reconcile.Loop
	start  time.Time
	passes []time.Duration      // by the loop alone; read once the bubble is idle
	sweeps []time.Duration      // likewise
	fail   func(pass int) error // what pass 1, 2, ... returns; nil: they all succeed
}

func run(t *testing.T, change func(*bench, *reconcile.Config)) (b *bench, stop func() error) {
	t.Helper()
	b = &bench{start: time.Now()}
	config := reconcile.Config{Name: "test", Interval: 10 * time.Second, Pass: func(context.Context) error {
		b.passes = append(b.passes, time.Since(b.start))
		if b.fail == nil {
			return nil
		}
		return b.fail(len(b.passes))
	}}
	change(b, &config)
	loop, err := reconcile.New(config)
	if err != nil {
		t.Fatal(err)
	}
	b.Loop = loop
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	synctest.Wait()
	return b, func() error { cancel(); return <-done }
}

// failing makes the first n passes fail.
func failing(n int) func(int) error {
	return func(pass int) error {
		if pass > n {
			return nil
		}
		return errors.New("no store")
	}
}

// after lets d pass, and what is due by then be done.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func want(t *testing.T, what string, got []time.Duration, seconds ...int) {
	t.Helper()
	var list []time.Duration
	for _, s := range seconds {
		list = append(list, time.Duration(s)*time.Second)
	}
	if diff := cmp.Diff(list, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestPassesAtOnceAndAtEachInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, stop := run(t, func(*bench, *reconcile.Config) {})
		after(25 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		want(t, "passes", b.passes, 0, 10, 20)
	})
}

// However many reasons to look come up during a pass, one more pass sees them all.
func TestWakesDuringAPassAreOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, stop := run(t, func(b *bench, c *reconcile.Config) {
			c.Pass = func(context.Context) error {
				b.passes = append(b.passes, time.Since(b.start))
				time.Sleep(2 * time.Second)
				return nil
			}
		})
		after(time.Second)
		for range 5 {
			b.Wake()
		}
		after(8 * time.Second)
		_ = stop()
		want(t, "passes", b.passes, 0, 2)
	})
}

func TestCommitsBelowThePrefixWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		put := func(key string) {
			t.Helper()
			if _, err := memory.Commit(t.Context(), store.Put(key, []byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		b, stop := run(t, func(_ *bench, c *reconcile.Config) {
			c.Store, c.Prefix = memory, "open/"
			c.Wakes = func(e store.Event) bool { return len(e.Puts) > 0 }
		})
		after(2 * time.Second)
		put("open/a")
		after(time.Second)
		put("done/a")
		if _, err := memory.Commit(t.Context(), store.Delete("open/a")); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		_ = stop()
		want(t, "passes", b.passes, 0, 2)
	})
}

// What was committed while no watch was up is looked at as soon as one is up again.
func TestAWatchThatEndedIsMadeUpFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		faulty := storetest.NewFaulty(store.NewMemory())
		b, stop := run(t, func(_ *bench, c *reconcile.Config) { c.Store, c.Prefix = faulty, "open/" })
		after(4 * time.Second)
		faulty.Cut(store.ErrCompacted)
		after(8 * time.Second) // a pass by the ticker at 10
		if _, err := faulty.Commit(t.Context(), store.Put("open/unseen", nil)); err != nil {
			t.Fatal(err)
		}
		after(3 * time.Second) // the watch is up again at 14
		_ = stop()
		want(t, "passes", b.passes, 0, 10, 14)
	})
}

func TestSweepFollowsAPassThatSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, stop := run(t, func(b *bench, c *reconcile.Config) {
			b.fail = failing(2)
			c.Sweep = func(context.Context) error { b.sweeps = append(b.sweeps, time.Since(b.start)); return nil }
			c.SweepEvery = 25 * time.Second
		})
		after(55 * time.Second)
		_ = stop()
		want(t, "sweeps", b.sweeps, 20, 50)
	})
}

func TestAnErrorIsLoggedOnceCountedAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		counted := 0
		b, stop := run(t, func(b *bench, c *reconcile.Config) {
			b.fail = failing(3)
			c.OnError = func(error) { counted++ }
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		after(25 * time.Second)
		if err := b.Err(); err == nil || err.Error() != "no store" {
			t.Errorf("Err is %v", err)
		}
		after(10 * time.Second)
		if err := b.Err(); err != nil {
			t.Errorf("Err is %v after a pass that succeeded", err)
		}
		_ = stop()
		if counted != 3 {
			t.Errorf("%d errors counted, want 3", counted)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 {
			t.Errorf("%d lines logged, want one for the error and one for its end:\n%s", lines, log.String())
		}
	})
}

func TestLossOfLeadershipEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, stop := run(t, func(b *bench, _ *reconcile.Config) {
			b.fail = func(int) error { return fmt.Errorf("write: %w", store.ErrFenced) }
		})
		after(time.Second)
		if err := stop(); !errors.Is(err, store.ErrFenced) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestRunsOnceAtATimeAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, stop := run(t, func(*bench, *reconcile.Config) {})
		if err := b.Run(t.Context()); !errors.Is(err, reconcile.ErrRunning) {
			t.Errorf("a second Run returned %v", err)
		}
		_ = stop()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Run(ctx); err != nil {
			t.Errorf("Run after Run: %v", err)
		}
	})
}

// The end of ctx waits for the pass under way, and is no error even if the pass calls it one.
func TestTheEndWaitsForThePass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		over := false
		_, stop := run(t, func(_ *bench, c *reconcile.Config) {
			c.Pass = func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(2 * time.Second) // a call that takes its time to end
				over = true
				return ctx.Err()
			}
		})
		if err := stop(); err != nil || !over {
			t.Errorf("Run returned %v, pass over: %v", err, over)
		}
	})
}

func TestNewReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := reconcile.New(reconcile.Config{Prefix: "x/", SweepEvery: -1})
	for _, field := range []string{"Name", "Interval", "Pass", "SweepEvery", "Store"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}
