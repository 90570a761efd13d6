package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/storetest"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

func open(t *testing.T, dsn string) *pgstore.Store {
	t.Helper()
	store, err := pgstore.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestConformance(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	storetest.Run(t, func(t *testing.T) flow.Store { return open(t, server.Database(t)) })
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	for name, one := range map[string]struct{ dsn, want string }{
		"not durable":    {server.Database(t) + "&synchronous_commit=off", "not durable"},
		"no such server": {"postgres://nobody:geheim@127.0.0.1:1/none", "open"},
		"not a dsn":      {"postgres://x:geheim@[/", "open"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pgstore.Open(t.Context(), one.dsn)
			if err == nil || !strings.Contains(err.Error(), one.want) {
				t.Fatalf("open: %v, want %q", err, one.want)
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// The writer's lock keeps a second one out, and goes with the writer.
func TestOneWriterPerSchema(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Start(t).Database(t)
	first, err := pgstore.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Open(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("open again: %v, want a refusal", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	open(t, dsn)
}

// An embedder's pool stays the embedder's.
func TestEmbeddersPool(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), pgtest.Start(t).Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	store := pgstore.New(pool)
	if _, err := store.Definitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM flow_run").Scan(&n); err != nil {
		t.Fatal("the pool was closed with the store:", err)
	}
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678_000, time.UTC)

func running(id string) flow.Transition {
	return flow.Transition{
		Row:    flow.Row{ID: id, Flow: "f", Version: 1, State: flow.Running, Wake: flow.Wake{Kind: flow.WakeLease}, Seq: 1, Started: epoch, Updated: epoch},
		Record: flow.Record{Seq: 1, At: epoch, Body: []byte(`[{"kind":"execution.started"}]`)},
	}
}

// What was acknowledged is there after the server was killed and has recovered; the writer that lost its connection says so and commits
// nothing more.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	dsn := server.Database(t)
	store := open(t, dsn)
	want := []string{"x1", "x0"}
	for _, id := range []string{"x0", "x1"} {
		if fates, err := store.Commit(t.Context(), []flow.Transition{running(id)}); err != nil || fates[0] != nil {
			t.Fatal(fates, err)
		}
	}
	server.Kill()
	if _, err := store.Commit(t.Context(), []flow.Transition{running("x2")}); err == nil {
		t.Fatal("a commit without a server succeeds")
	}
	server.Run()
	if _, err := store.Commit(t.Context(), []flow.Transition{running("x3")}); err == nil {
		t.Fatal("a writer that lost its lock goes on")
	}
	rows, err := open(t, dsn).List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, row.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A caller that goes away in the middle of a write does not take the writer with it.
func TestACallerGoesAway(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Start(t).Database(t)
	store := open(t, dsn)
	other, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE flow_definition"); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	saved := make(chan error, 1)
	go func() {
		saved <- store.PutDefinition(ctx, flow.DefinitionRecord{Name: "f", Version: 1, SavedAt: epoch})
	}()
	<-ctx.Done()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-saved // written or not: it was on its way
	if fates, err := store.Commit(t.Context(), []flow.Transition{running("x")}); err != nil || fates[0] != nil {
		t.Error("the writer is gone:", fates, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Commit(gone, []flow.Transition{running("y")}); !errors.Is(err, context.Canceled) {
		t.Error("a write for somebody who had gone before:", err)
	}
}

// Steps write to the heap alone: no index is touched until an execution ends.
func TestUpdatesAreHeapOnly(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Start(t).Database(t)
	store := open(t, dsn)
	one := running("x")
	if _, err := store.Commit(t.Context(), []flow.Transition{one}); err != nil {
		t.Fatal(err)
	}
	const updates = 10
	for range updates {
		one.Prev = one.Row.Seq
		one.Row.Seq++
		one.Record.Seq = one.Row.Seq
		one.Row.Wake.Kind = map[flow.WakeKind]flow.WakeKind{flow.WakeLease: flow.WakeRunnable, flow.WakeRunnable: flow.WakeLease}[one.Row.Wake.Kind]
		if fates, err := store.Commit(t.Context(), []flow.Transition{one}); err != nil || fates[0] != nil {
			t.Fatal(fates, err)
		}
	}
	if err := store.Close(); err != nil { // its counts reach the statistics at the latest now
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for limit := time.After(30 * time.Second); ; {
		var all, hot int
		if err := conn.QueryRow(t.Context(), "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'flow_run'").Scan(&all, &hot); err != nil {
			t.Fatal(err)
		}
		if all == updates {
			if hot != updates {
				t.Errorf("%d of %d updates are heap-only", hot, all)
			}
			return
		}
		select {
		case <-limit:
			t.Fatalf("the statistics show %d updates, want %d", all, updates)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
