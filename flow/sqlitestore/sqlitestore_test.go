package sqlitestore_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/flow/storetest"
)

func open(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	store, err := sqlitestore.Open(path)
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
	storetest.Run(t, func(t *testing.T) flow.Store { return open(t, filepath.Join(t.TempDir(), "flow.db")) })
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flow.db")
	open(t, path)
	if _, err := sqlitestore.Open(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("open again: %v, want a refusal", err)
	}
}

func TestEmbeddersDatabase(t *testing.T) {
	t.Parallel()
	for pragmas, want := range map[string]string{
		"_pragma=journal_mode(wal)&_pragma=synchronous(full)":   "",
		"_pragma=journal_mode(wal)&_pragma=synchronous(normal)": "not durable",
		"_pragma=synchronous(full)":                             "not durable",
	} {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "own.db")+"?"+pragmas)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		store := sqlitestore.New(db)
		defer store.Close()
		_, err = store.Definitions(t.Context())
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", pragmas, err, want)
		}
	}
}

// The database itself refuses an execution that nothing, or more than one thing, would wake.
func TestExactlyOneWakeUpSource(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, row := range map[string]flow.Row{
		"open without a source":    {State: flow.Running, Wake: flow.Wake{Kind: flow.WakeNone}},
		"ended with a source":      {State: flow.Done, Ended: at, Wake: flow.Wake{Kind: flow.WakeLease}},
		"timer without a time":     {State: flow.Running, Wake: flow.Wake{Kind: flow.WakeTimer}},
		"lease with a time":        {State: flow.Running, Wake: flow.Wake{Kind: flow.WakeLease, At: at}},
		"person without a purpose": {State: flow.Stuck, Wake: flow.Wake{Kind: flow.WakePerson}},
		"stuck on a lease":         {State: flow.Stuck, Wake: flow.Wake{Kind: flow.WakeLease}},
		"unknown source":           {State: flow.Running, Wake: flow.Wake{Kind: "hope"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t, filepath.Join(t.TempDir(), "flow.db"))
			row.ID, row.Flow, row.Version, row.Seq, row.Started, row.Updated = "x", "f", 1, 1, at, at
			_, err := store.Commit(t.Context(), []flow.Transition{{Row: row, Record: flow.Record{Seq: 1, At: at, Body: []byte("[]")}}})
			if err == nil || !strings.Contains(err.Error(), "CHECK") {
				t.Fatalf("commit: %v, want a refusal by a CHECK", err)
			}
			if _, err := store.Get(t.Context(), "x"); err == nil {
				t.Fatal("the row is there all the same")
			}
		})
	}
}

// A database of version 1 is brought up to date; one of the future is refused.
func TestMigration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flow.db")
	if err := scripted(t, path, `DROP INDEX flow_run_open; CREATE INDEX flow_run_open ON flow_run (id) WHERE wake <> 'none';
		DROP TABLE flow_tag; DROP TABLE flow_lock; DROP INDEX flow_run_ended; DELETE FROM flow_schema; INSERT INTO flow_schema (version) VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if err := scripted(t, path, "INSERT INTO flow_schema (version) VALUES (99)"); err != nil {
		t.Fatal("version 1:", err)
	}
	if err := scripted(t, path, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "run a newer program") {
		t.Fatalf("version 99: %v, want a refusal", err)
	}
}

// scripted opens the store, which makes the tables, closes it, and then runs a script on the database.
func scripted(t *testing.T, path, script string) error {
	t.Helper()
	store, err := sqlitestore.Open(path)
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(script)
	return err
}
