package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	storetest.RunShared(t, func(t *testing.T, n int) []flow.Shared {
		dsn := server.Database(t)
		out := make([]flow.Shared, n)
		for i := range out {
			out[i] = open(t, dsn)
		}
		return out
	})
}

// TestStore runs what does not need a server of its own.
func TestStore(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	for name, test := range map[string]func(*testing.T, *pgtest.Server){
		"Refusals": refusals, "LayoutLock": layoutLock, "Versions": versions, "SameName": sameName, "EmbeddersPool": embeddersPool,
		"AnswerLost": answerLost, "ClaimsAreLinear": claimsAreLinear, "StartTx": startInTheEmbeddersTransaction, "StartTxUnprepared": startWithoutPreparing, "ACallerGoesAway": aCallerGoesAway, "UpdatesAreHeapOnly": updatesAreHeapOnly,
		"MessagesOfAllSizes": messagesOfAllSizes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

func refusals(t *testing.T, server *pgtest.Server) {
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

// The lock on the tables' layout: who works with the tables keeps out who would change them, and the other way round.
func layoutLock(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
	conn := connect(t, dsn)
	const key = "(2053662316, hashtext(current_schema()))"
	lock := func(how string) (got bool) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT pg_try_advisory_"+how+key).Scan(&got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := open(t, dsn)
	open(t, dsn) // beside it
	if lock("lock") {
		t.Fatal("a program of the first version, or one that migrates, gets in")
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
}

// Programs and tables of different versions: a newer program waits for older ones to end, an older one refuses newer tables.
func versions(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
	conn := connect(t, dsn)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(within time.Duration, want string) {
		t.Helper()
		for ; ; within *= 3 { // on a busy machine it may take longer to get as far
			ctx, cancel := context.WithTimeout(t.Context(), within)
			store, err := pgstore.Open(ctx, dsn)
			late := ctx.Err() != nil
			cancel()
			if err == nil {
				store.Close()
			}
			if err != nil && strings.Contains(err.Error(), want) {
				return
			}
			if !late || within > time.Minute {
				t.Fatalf("open: %v, want %q", err, want)
			}
		}
	}
	// As the first version of the program leaves it, with an execution, and runs.
	exec("CREATE TABLE flow_schema (version integer NOT NULL); INSERT INTO flow_schema VALUES (1)")
	exec(pgstore.Schema1)
	exec("INSERT INTO flow_run (id, flow, version, state, open, wake, seq, started, updated) VALUES ('old', 'f', 1, 'running', true, 'lease', 1, now(), now())")
	exec("SELECT pg_advisory_lock(2053662316, hashtext(current_schema()))")
	refused(3*time.Second, "another process keeps flows in this schema alone")
	exec("SELECT pg_advisory_unlock_all()")
	store := open(t, dsn)
	member, err := store.Join(t.Context(), "new", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := store.Claim(t.Context(), member, 10); err != nil || len(rows) != 1 {
		t.Errorf("claimed %v, %v; want what the old version left open", rows, err)
	}
	exec("INSERT INTO flow_schema VALUES (999)")
	refused(time.Minute, "run a newer program")
}

// What is there when a process of the same name starts: the executions of one whose connection is gone are free at once, those of one that lives are not.
func sameName(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
	dead, live := open(t, dsn), open(t, dsn)
	join := func(s *pgstore.Store) int64 {
		t.Helper()
		member, err := s.Join(t.Context(), "host", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return member
	}
	one, two := running("dead"), running("live")
	one.Row.Owner, two.Row.Owner = join(dead), join(live)
	for _, both := range []struct {
		store *pgstore.Store
		batch []flow.Transition
	}{{dead, []flow.Transition{one}}, {live, []flow.Transition{two}}} {
		if fates, err := both.store.Commit(t.Context(), both.batch); err != nil || fates[0] != nil {
			t.Fatal(fates, err)
		}
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	started := open(t, dsn)
	var rows []flow.Row
	for end := time.Now().Add(20 * time.Second); len(rows) == 0 && time.Now().Before(end); {
		var err error
		if rows, err = started.Claim(t.Context(), join(started), 10); err != nil {
			t.Fatal(err)
		}
	}
	if len(rows) != 1 || rows[0].ID != "dead" {
		t.Errorf("claimed %v, want the execution of who is dead", rows)
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// An embedder's pool stays the embedder's.
func embeddersPool(t *testing.T, server *pgtest.Server) {
	pool, err := pgxpool.New(t.Context(), server.Database(t))
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

// The connection writes large messages into room that is lent to it, and small ones into its own: whatever the order, what is stored is what was committed.
func messagesOfAllSizes(t *testing.T, server *pgtest.Server) {
	store := open(t, server.Database(t))
	want := map[string][]byte{}
	for round, size := range []int{1, 90, 2, 40, 1, 90, 1} {
		batch := make([]flow.Transition, size)
		for i := range batch {
			id := fmt.Sprintf("01890a5d-ac96-774b-bcce-%04d%08d", round, i)
			batch[i] = running(id)
			batch[i].Record.Body = fmt.Appendf(nil, "[{\"kind\":\"execution.started\",\"reason\":%q}]", strings.Repeat(strconv.Itoa(round), 1+(i*37)%500))
			want[id] = batch[i].Record.Body
		}
		fates, err := store.Commit(t.Context(), batch)
		if err := errors.Join(append(fates, err)...); err != nil {
			t.Fatal(err)
		}
	}
	for id, body := range want {
		records, err := store.History(t.Context(), id, 0, 0)
		if err != nil || len(records) != 1 || string(records[0].Body) != string(body) {
			t.Fatalf("%s: %d records, %v; want its one of %d bytes", id, len(records), err, len(body))
		}
	}
}

// What was acknowledged is there after the server was killed and has recovered. A commit made meanwhile waits, and is made once; one whose
// context ends says that it is not known to be durable.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	store := open(t, server.Database(t))
	commit := func(ctx context.Context, id string) error {
		fates, err := store.Commit(ctx, []flow.Transition{running(id)})
		if err == nil {
			err = fates[0]
		}
		return err
	}
	for _, id := range []string{"x0", "x1"} {
		if err := commit(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := commit(short, "given up"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a commit without a server: %v", err)
	}
	waits, reads := make(chan error, 1), make(chan error, 1)
	go func() { waits <- commit(t.Context(), "x2") }() // both end with the server's return
	go func() { _, err := store.Get(t.Context(), "x0"); reads <- err }()
	server.Run()
	if err := errors.Join(<-waits, <-reads); err != nil {
		t.Fatal("a store whose server came back:", err)
	}
	rows, err := store.List(t.Context(), flow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, row.ID)
	}
	if diff := cmp.Diff([]string{"x2", "x1", "x0"}, got); diff != "" {
		t.Error(diff)
	}
}

// A commit whose answer is lost is made again, and what it had stored counts as stored, once: a connection that breaks after the commit, and before it.
func answerLost(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			cut := newCutter(t, dsn)
			store := open(t, cut.dsn)
			member, err := store.Join(t.Context(), t.Name(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			one := running(t.Name())
			one.Row.Owner = member
			two := one
			two.Prev, two.Row.Seq, two.Record.Seq = 1, 2, 2
			two.Notices = []flow.Notice{{ID: t.Name()}}
			other := running(t.Name() + " other")
			if fates, err := store.Commit(t.Context(), []flow.Transition{other}); err != nil || fates[0] != nil {
				t.Fatal(fates, err)
			}
			cut.next(stored)
			fates, err := store.Commit(t.Context(), []flow.Transition{one, two, other})
			if err != nil || fates[0] != nil || fates[1] != nil || !cut.done() {
				t.Fatal(fates, err, cut.done())
			}
			// The other was there before, as it is: that is the one case in which a repetition cannot be told from a second one.
			if records, err := store.History(t.Context(), t.Name(), 0, 0); err != nil || len(records) != 2 {
				t.Error(records, err)
			}
			var n int
			if err := connect(t, dsn).QueryRow(t.Context(), "SELECT count(*) FROM flow_notice WHERE id = $1", t.Name()).Scan(&n); err != nil || n != 1 {
				t.Errorf("%d notices, %v", n, err)
			}
		})
	}
}

// A caller that goes away in the middle of a write does not take the writer with it.
func aCallerGoesAway(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
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
func updatesAreHeapOnly(t *testing.T, server *pgtest.Server) {
	dsn := server.Database(t)
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
		var all, hot, read int
		if err := conn.QueryRow(t.Context(), "SELECT n_tup_upd, n_tup_hot_upd, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'flow_run'").Scan(&all, &hot, &read); err != nil {
			t.Fatal(err)
		}
		if all == updates {
			if hot != updates {
				t.Errorf("%d of %d updates are heap-only", hot, all)
			}
			if read > 0 {
				t.Errorf("%d rows were read by going through the whole table: its executions have to be looked up", read)
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
