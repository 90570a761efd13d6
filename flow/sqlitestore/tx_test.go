package sqlitestore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

const own = sqlitestore.Options

func ownDatabase(t *testing.T, options string) (*sql.DB, *sqlitestore.Store) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "own.db")+"?"+options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store := sqlitestore.New(db)
	t.Cleanup(func() { store.Close() })
	if _, err := db.Exec("CREATE TABLE orders (id TEXT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	return db, store
}

// started writes an order and starts its flow in one transaction.
func started(t *testing.T, db *sql.DB, store *sqlitestore.Store, engine *flow.Engine, order string, commit bool) string {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("INSERT INTO orders (id) VALUES (?)", order); err != nil {
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
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

const small = `
flow: small
params: {n: int}
steps:
  - {name: list, tool: numbers, with: {n: "${params.n}"}}
  - {name: last, tool: echo, with: {text: done}}
`

// The embedder's rows and the flow are there together, or not at all; with Wake, without it, and while the engine works.
func TestStartInTheEmbeddersTransaction(t *testing.T) {
	t.Parallel()
	db, store := ownDatabase(t, own)
	run(t, store, func(engine *flow.Engine) {
		if _, err := engine.Save(t.Context(), []byte(small)); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			id := started(t, db, store, engine, fmt.Sprint("woken ", i), true)
			if err := engine.Wake(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done || x.Actor != "ann" {
				t.Fatalf("woken: %s by %s, %v", x.State, x.Actor, err)
			}
		}
		forgotten := started(t, db, store, engine, "forgotten", true)
		began := time.Now()
		if x, err := engine.Wait(t.Context(), forgotten); err != nil || x.State != flow.Done {
			t.Fatalf("forgotten: %s, %v", x.State, err)
		}
		t.Logf("without Wake it was done after %s", time.Since(began))
		gone := started(t, db, store, engine, "rolled back", false)
		if err := engine.Wake(t.Context(), gone); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("wake what was rolled back: %v, want ErrNotFound", err)
		}
		if id, err := engine.Start(t.Context(), "small", map[string]any{"n": 1}, flow.Key("woken 0")); err != nil || id == "" {
			t.Errorf("start again by key: %s, %v", id, err)
		}
		rows, _, err := engine.List(t.Context(), flow.Filter{})
		if err != nil || len(rows) != 4 {
			t.Errorf("%d executions, %v; want 4", len(rows), err)
		}
	})
	var orders int
	if err := db.QueryRow("SELECT count(*) FROM orders").Scan(&orders); err != nil || orders != 4 {
		t.Errorf("%d orders, %v; want 4", orders, err)
	}
	if found, err := flow.Check(t.Context(), store); err != nil || len(found) > 0 {
		t.Errorf("check: %v, %v", found, err)
	}
}

// The engine waits while a transaction holds the database, and goes on behind it.
func TestEngineWaitsForATransaction(t *testing.T) {
	t.Parallel()
	db, store := ownDatabase(t, own)
	run(t, store, func(engine *flow.Engine) {
		if _, err := engine.Save(t.Context(), []byte(small)); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { // ends behind the transaction; waited for below
			_, err := engine.Start(t.Context(), "small", map[string]any{"n": 1})
			done <- err
		}()
		id, err := engine.StartTx(t.Context(), store.Tx(tx), "small", map[string]any{"n": 1})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("a start was acknowledged while the database was held: %v", err)
		default:
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done {
			t.Fatalf("%s, %v", x.State, err)
		}
	})
}

// A transaction on a connection that does not sync is refused: its start could be lost after it was acknowledged.
func TestTransactionMustBeDurable(t *testing.T) {
	t.Parallel()
	db, store := ownDatabase(t, own)
	run(t, store, func(engine *flow.Engine) {
		if _, err := engine.Save(t.Context(), []byte(small)); err != nil {
			t.Fatal(err)
		}
		conn, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.ExecContext(t.Context(), "PRAGMA synchronous = normal"); err != nil {
			t.Fatal(err)
		}
		tx, err := conn.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		_, err = engine.StartTx(t.Context(), store.Tx(tx), "small", map[string]any{"n": 1})
		if err == nil || !strings.Contains(err.Error(), "not durable") {
			t.Fatalf("start: %v, want a refusal", err)
		}
	})
}
