package sqlitestore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
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

// Secrets stand in the store as they are: it is its owner's alone, in a folder that others may read as well.
func TestStoreIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := open(t, filepath.Join(dir, "flow.db"))
	if err := store.PutDefinition(t.Context(), flow.DefinitionRecord{Name: "f", Version: 1, Source: []byte("flow: f")}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v; want the database, its log and its lock", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v; want 0600", file.Name(), info.Mode(), err)
		}
	}
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

// What an older program has left reads the same once it is brought up to date: whatever the version, rows and histories are those that were written,
// and executions go on.
func TestMigration(t *testing.T) {
	t.Parallel()
	for version, scripts := range map[int][]string{
		1: {"schema.sql", "-DROP INDEX flow_run_open; CREATE INDEX flow_run_open ON flow_run (id) WHERE wake <> 'none'"},
		2: {"schema.sql"},
		3: {"schema.sql", "schema3.sql"},
	} {
		t.Run(fmt.Sprint("from ", version), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "flow.db")
			want := lived(t)
			old(t, path, version, scripts, want)
			got := open(t, path)
			if diff := cmp.Diff(dump(t, want), dump(t, got)); diff != "" {
				t.Fatal(diff)
			}
			if found, err := flow.Check(t.Context(), got); err != nil || len(found) > 0 {
				t.Fatalf("check: %v, %v", found, err)
			}
			run(t, got, func(engine *flow.Engine) {
				rows, _, err := engine.List(t.Context(), flow.Filter{Open: true})
				if err != nil || len(rows) != 2 {
					t.Fatalf("open: %v, %v; want two", rows, err)
				}
				for _, row := range rows {
					if x, err := engine.Wait(t.Context(), row.ID); err != nil || x.State != flow.Done {
						t.Fatalf("%s: %s, %v", row.ID, x.State, err)
					}
				}
			})
			if found, err := flow.Check(t.Context(), got); err != nil || len(found) > 0 {
				t.Fatalf("check: %v, %v", found, err)
			}
		})
	}
}

// lived returns a store in which executions have ended, and others wait for an engine.
func lived(t *testing.T) flow.Store {
	t.Helper()
	store := memstore.New()
	start := func(engine *flow.Engine, n int) (ids []string) {
		for i := range n {
			id, err := engine.Start(t.Context(), "small", map[string]any{"n": 300 * i}, flow.Key(fmt.Sprint(n, i)), flow.By("ann"), flow.Because("test"))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		return ids
	}
	run(t, store, func(engine *flow.Engine) {
		if _, err := engine.Save(t.Context(), []byte(`
flow: small
params: {n: int}
steps:
  - {name: list, tool: numbers, with: {n: "${params.n}"}}
  - {name: each, each: "${steps.list.numbers}", tool: echo, parallel: 8, with: {text: "${string(item)}"}}
  - {name: last, tool: echo, with: {text: done}}
`)); err != nil {
			t.Fatal(err)
		}
		for _, id := range start(engine, 3) {
			if x, err := engine.Wait(t.Context(), id); err != nil || x.State != flow.Done {
				t.Fatalf("%s: %s, %v", id, x.State, err)
			}
		}
	})
	start(engineOn(t, store), 2) // nobody runs
	return store
}

func engineOn(t *testing.T, store flow.Store) *flow.Engine {
	t.Helper()
	tools := flow.NewTools()
	type text struct {
		Text string `json:"text"`
	}
	flow.Func(tools, "echo", func(_ context.Context, in text) (text, error) { return in, nil }, flow.WithEffect(flow.Pure))
	flow.Func(tools, "numbers", func(_ context.Context, in struct {
		N int `json:"n"`
	}) (out struct {
		Numbers []int `json:"numbers"`
	}, err error) {
		for i := range in.N {
			out.Numbers = append(out.Numbers, i)
		}
		return out, nil
	}, flow.WithEffect(flow.Pure))
	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// run runs an engine on the store while fn does.
func run(t *testing.T, store flow.Store, fn func(*flow.Engine)) {
	t.Helper()
	engine := engineOn(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
	fn(engine)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

type dumped struct {
	Row      flow.Row
	Records  []flow.Record
	Behind   []flow.Record // the tail of them
	Selected []flow.Record // from the middle
}

func dump(t *testing.T, store flow.Store) (out []dumped) {
	t.Helper()
	rows, err := store.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		d := dumped{Row: row}
		for _, one := range []struct {
			into  *[]flow.Record
			after int64
			limit int
		}{{&d.Records, 0, 0}, {&d.Behind, row.Seq / 2, 0}, {&d.Selected, row.Seq / 3, 400}} {
			if *one.into, err = store.History(t.Context(), row.ID, one.after, one.limit); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, d)
	}
	return out
}

// old makes a database as programs of an older version did, with what is in a store.
func old(t *testing.T, path string, version int, scripts []string, from flow.Store) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	do := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range scripts {
		text, inline := strings.CutPrefix(script, "-")
		if !inline {
			data, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		do(text)
	}
	do("CREATE TABLE flow_schema (version INTEGER NOT NULL)")
	do("INSERT INTO flow_schema (version) VALUES (?)", version)
	definitions, err := from.Definitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		do("INSERT INTO flow_definition (name, version, digest, source, saved_at) VALUES (?, ?, ?, ?, ?)", d.Name, d.Version, d.Digest, d.Source, d.SavedAt.UnixMicro())
	}
	for _, d := range dump(t, from) {
		r := d.Row
		var ended, key any
		if !r.Ended.IsZero() {
			ended = r.Ended.UnixMicro()
		}
		if r.Key != "" {
			key = r.Key
		}
		do(`INSERT INTO flow_run (id, flow, version, key, state, paused, step, wake, seq, actor, reason, started, updated, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, r.Flow, r.Version, key, string(r.State), r.Paused, r.Step, string(r.Wake.Kind), r.Seq, r.Actor, r.Reason, r.Started.UnixMicro(), r.Updated.UnixMicro(), ended)
		for _, record := range d.Records {
			do("INSERT INTO flow_event (id, seq, at, body) VALUES (?, ?, ?, ?)", r.ID, record.Seq, record.At.UnixMicro(), record.Body)
		}
	}
}

// A program refuses tables that are newer than it.
func TestNewerTables(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flow.db")
	if err := scripted(t, path, "INSERT INTO flow_schema (version) VALUES (99)"); err != nil {
		t.Fatal(err)
	}
	if err := scripted(t, path, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "run a newer program") {
		t.Fatalf("version 99: %v, want a refusal", err)
	}
}

// A program that runs on an embedder's database while a newer one changes the tables is refused by name at its next write, whatever the tables have become,
// and writes nothing.
func TestTablesBecomeNewer(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"a column more": "ALTER TABLE flow_event ADD COLUMN more",
		"other tables":  "ALTER TABLE flow_event RENAME TO flow_events",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "own.db")
			db, err := sql.Open("sqlite", "file:"+path+"?"+sqlitestore.Options)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			store := sqlitestore.New(db)
			defer store.Close()
			ids := make([]string, 2)
			for i := range ids {
				ids[i] = fmt.Sprintf("01890a5d-ac96-774b-bcce-b302099a000%d", i)
			}
			begin := func(id string) error {
				at := time.UnixMicro(1).UTC()
				fates, err := store.Commit(t.Context(), []flow.Transition{{
					Row:    flow.Row{ID: id, Flow: "f", Version: 1, State: flow.Running, Wake: flow.Wake{Kind: flow.WakeRunnable}, Seq: 1, Started: at, Updated: at},
					Record: flow.Record{Seq: 1, At: at, Body: []byte("[]")},
				}})
				return errors.Join(append(fates, err)...)
			}
			if err := begin(ids[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(change + "; INSERT INTO flow_schema (version) VALUES (99)"); err != nil {
				t.Fatal(err)
			}
			_, removed := store.Remove(t.Context(), ids)
			for what, err := range map[string]error{
				"commit": begin(ids[1]), "remove": removed, "deliver": store.Delivered(t.Context(), "n"),
				"save": store.PutDefinition(t.Context(), flow.DefinitionRecord{Name: "f", Version: 1, Digest: "d", Source: []byte("s")}),
			} {
				if err == nil || !strings.Contains(err.Error(), "tables are of version 99") || !strings.Contains(err.Error(), "run a newer program") {
					t.Errorf("%s: %v, want a refusal that names the versions", what, err)
				}
			}
			var there int
			if err := db.QueryRow("SELECT (SELECT count(*) FROM flow_run) + (SELECT count(*) FROM flow_definition)").Scan(&there); err != nil || there != 1 {
				t.Errorf("%d rows, %v; want that of the execution from before", there, err)
			}
		})
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

// What Open makes has the small pages that a step's log is reckoned with, and an embedder's database has, too, if it is opened with Options.
func TestPagesAreSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(t, filepath.Join(dir, "flow.db")).Close(); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]string{"flow.db": "", "own.db": sqlitestore.Options} {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, name)+"?"+options)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var size int
		var journal string
		if err := errors.Join(db.QueryRow("PRAGMA page_size").Scan(&size), db.QueryRow("PRAGMA journal_mode").Scan(&journal)); err != nil || size != 1024 || journal != "wal" {
			t.Errorf("%s has pages of %d bytes and the journal mode %s, %v; want 1024 and wal", name, size, journal, err)
		}
	}
}
