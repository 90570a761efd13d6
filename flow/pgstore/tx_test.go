package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// The embedder's rows and the flow are there together, or not at all; with Wake and without it, though the next beat is an hour away.
func startInTheEmbeddersTransaction(t *testing.T, server *pgtest.Server) {
	inTheEmbeddersTransaction(t, server, "cache_statement")
}

// The same through a connection that must not keep statements, as behind a proxy that hands out another session for each transaction.
func startWithoutPreparing(t *testing.T, server *pgtest.Server) {
	inTheEmbeddersTransaction(t, server, "exec")
}

func inTheEmbeddersTransaction(t *testing.T, server *pgtest.Server, mode string) {
	dsn := server.Database(t)
	store, conn := open(t, dsn), connect(t, dsn+"&default_query_exec_mode="+mode)
	defer func() {
		var kept int
		if err := conn.QueryRow(context.Background(), "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'WITH alive%'").Scan(&kept); err != nil || (kept > 0) != (mode == "cache_statement") {
			t.Errorf("%d statements are kept in mode %s, %v", kept, mode, err)
		}
	}()
	if _, err := conn.Exec(t.Context(), "CREATE TABLE orders (id text PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	tools := flow.NewTools()
	flow.Func(tools, "echo", func(_ context.Context, in struct {
		N int `json:"n"`
	}) (struct{}, error) {
		return struct{}{}, nil
	}, flow.WithEffect(flow.Pure))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools, Heartbeat: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if _, err := engine.Save(t.Context(), []byte("flow: small\nparams: {n: int}\nsteps:\n  - {name: a, tool: echo, with: {n: \"${params.n}\"}}\n")); err != nil {
		t.Fatal(err)
	}
	began := func(order string, commit bool) string {
		t.Helper()
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		if _, err := tx.Exec(t.Context(), "INSERT INTO orders (id) VALUES ($1)", order); err != nil {
			t.Fatal(err)
		}
		id, err := engine.StartTx(t.Context(), store.Tx(tx), "small", map[string]any{"n": 1}, flow.Key(order), flow.By("ann"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := engine.StartTx(t.Context(), store.Tx(tx), "small", map[string]any{"n": 1}, flow.Key(order))
		if err != nil || again != id {
			t.Fatalf("start again in the same transaction: %s, %v; want %s", again, err, id)
		}
		if commit {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return id
	}
	for i, wake := range []bool{true, false} {
		id := began(fmt.Sprint(i), true)
		if wake {
			if err := engine.Wake(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done || x.Actor != "ann" {
			t.Fatalf("woken %t: %s by %s, %v", wake, x.State, x.Actor, err)
		}
	}
	if err := engine.Wake(t.Context(), began("rolled back", false)); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("wake what was rolled back: %v, want ErrNotFound", err)
	}
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "SET LOCAL synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.StartTx(t.Context(), store.Tx(tx), "small", map[string]any{"n": 1}); err == nil {
		t.Error("a start in a transaction that is not durable")
	}
}
