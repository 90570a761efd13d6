package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// writer writes transitions on one connection. A commit costs a statement per transition, and one for so many events: they go to
// the table's end together. Its statements are made by prepare; a nil *sql.Stmt is of no writer.
type writer struct {
	begin, rollback, end,
	insert, first, // a new execution
	find, step, update, ended, // one that is there
	newest, version, mark, notice, tag,
	holder, take, drop *sql.Stmt // locks
	unmake []*sql.Stmt // what removes an execution; the last one is its row
	events []chunk

	known map[string]place // of executions written lately, that a step need not look them up
	next  int64            // the n of the next event in this transaction
	queue []any            // the events of this transaction, columns of each in turn
}

// chunk inserts so many events at once.
type chunk struct {
	size      int
	statement *sql.Stmt
}

// place is where an execution stands in the tables.
type place struct {
	n, seq, last int64
	version      int
	ended        bool
}

const (
	eventColumns = 6
	maxKnown     = 4096 // then all are forgotten: what is in use comes back
	markEvery    = 8    // as a power of two: 256 events
	maxLocked    = time.Minute
)

// preparer is a connection, or a transaction.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// prepare makes the statements.
func (w *writer) prepare(ctx context.Context, conn preparer) (err error) {
	for _, one := range []struct {
		into  **sql.Stmt
		query string
	}{
		{&w.begin, "BEGIN IMMEDIATE"},
		{&w.end, "COMMIT"},
		{&w.rollback, "ROLLBACK"},
		{&w.newest, "SELECT (SELECT coalesce(max(n), 0) FROM flow_event), (SELECT max(version) FROM flow_schema)"},
		{&w.version, "SELECT max(version) FROM flow_schema"},
		{&w.insert, "INSERT INTO flow_run (id, flow, key, parent, actor, reason, started, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
		{&w.first, `INSERT INTO flow_now (version, state, paused, step, wake, wake_at, wake_for, seq, updated, error, last, n)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.find, "SELECT n, seq, last, version, ended IS NOT NULL FROM flow_run JOIN flow_now USING (n) WHERE id = ?"},
		// Nearly all: the next step of an execution runs.
		{&w.step, `UPDATE flow_now SET state = 'running', paused = 0, wake = 'lease', wake_at = NULL, wake_for = NULL, error = NULL,
			step = ?, seq = ?, updated = ?, last = ? WHERE n = ? AND seq = ?`},
		{&w.update, `UPDATE flow_now SET version = ?, state = ?, paused = ?, step = ?, wake = ?, wake_at = ?, wake_for = ?, seq = ?, updated = ?, error = ?, last = ?
			WHERE n = ? AND seq = ?`},
		{&w.ended, "UPDATE flow_run SET ended = ? WHERE n = ?"},
		{&w.mark, "INSERT INTO flow_mark (run, seq, n) VALUES (?, ?, ?)"},
		{&w.notice, "INSERT INTO flow_notice (id, body) VALUES (?, ?)"},
		{&w.holder, "SELECT execution, since FROM flow_lock WHERE key = ?"},
		{&w.take, "INSERT INTO flow_lock (key, execution, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"},
		{&w.drop, "DELETE FROM flow_lock WHERE key = ? AND execution = ?"},
		{&w.tag, "INSERT INTO flow_tag (name, value, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"},
	} {
		if *one.into, err = conn.PrepareContext(ctx, one.query); err != nil {
			return err
		}
	}
	w.events = nil
	for _, size := range []int{32, 8, 1} {
		rows := strings.TrimSuffix(strings.Repeat("(?, ?, ?, ?, ?, ?), ", size), ", ")
		statement, err := conn.PrepareContext(ctx, "INSERT INTO flow_event (n, run, prev, seq, at, body) VALUES "+rows)
		if err != nil {
			return err
		}
		w.events = append(w.events, chunk{size, statement})
	}
	w.unmake = nil
	for _, query := range []string{
		`DELETE FROM flow_event WHERE n IN (
			WITH RECURSIVE back (n) AS (
				SELECT last FROM flow_now WHERE n = ?1
				UNION ALL
				SELECT e.prev FROM back JOIN flow_event e USING (n) WHERE e.prev IS NOT NULL
			) SELECT n FROM back)`,
		"DELETE FROM flow_mark WHERE run = ?1",
		"DELETE FROM flow_tag WHERE id = (SELECT id FROM flow_run WHERE n = ?1)",
		"DELETE FROM flow_now WHERE n = ?1",
		"DELETE FROM flow_run WHERE n = ?1",
	} {
		statement, err := conn.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		w.unmake = append(w.unmake, statement)
	}
	w.known = map[string]place{}
	return nil
}

func (w *writer) close() error {
	var faults []error
	for _, statement := range []*sql.Stmt{
		w.begin, w.rollback, w.end, w.insert, w.first, w.find, w.step, w.update, w.ended, w.newest, w.version, w.mark, w.notice, w.tag, w.holder, w.take, w.drop,
	} {
		faults = append(faults, statement.Close())
	}
	for _, one := range w.events {
		faults = append(faults, one.statement.Close())
	}
	for _, statement := range w.unmake {
		faults = append(faults, statement.Close())
	}
	return errors.Join(faults...)
}

// Commit implements flow.Store.
func (s *Store) Commit(ctx context.Context, batch []flow.Transition) (fates []error, err error) {
	err = s.locked(ctx, func() error {
		return s.transact(func() error {
			fates, err = s.apply(batch)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: commit: %w", err)
	}
	return fates, nil
}

// transact runs fn in a transaction.
func (w *writer) transact(fn func() error) error {
	if err := w.lock(); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		_, err = w.end.Exec()
	}
	if err != nil {
		clear(w.known)
		_, _ = w.rollback.Exec() // a failed COMMIT may have ended the transaction already
		if newer := w.current(); errors.Is(newer, errOutdated) {
			return newer // and that is why
		}
	}
	return err
}

// change runs fn, which is no commit, in a transaction.
func (w *writer) change(fn func() error) error {
	return w.transact(func() error {
		if err := w.current(); err != nil {
			return err
		}
		return fn()
	})
}

// current refuses tables that this program does not know.
func (w *writer) current() error {
	var version int
	if err := w.version.QueryRow().Scan(&version); err != nil {
		return err
	}
	return known(version)
}

// lock begins a transaction. An embedder's may hold the database for longer than SQLite waits at a time; nothing is lost by waiting on.
func (w *writer) lock() error {
	for deadline := time.Now().Add(maxLocked); ; {
		_, err := w.begin.Exec()
		var failure *sqlite.Error
		switch {
		case err == nil || !errors.As(err, &failure) || failure.Code()&0xff != sqlite3.SQLITE_BUSY:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("another transaction has held the database for %s; commit or roll back sooner: %w", maxLocked, err)
		}
	}
}

// apply writes transitions; a fate says that one is refused.
func (w *writer) apply(batch []flow.Transition) ([]error, error) {
	if len(w.known) > maxKnown {
		clear(w.known)
	}
	clear(w.queue) // holds no bodies of the last commit
	w.queue = w.queue[:0]
	var version int
	if err := w.newest.QueryRow().Scan(&w.next, &version); err != nil {
		return nil, err
	}
	if err := known(version); err != nil {
		return nil, err
	}
	fates := make([]error, len(batch))
	for i := range batch {
		var err error
		if fates[i], err = w.one(&batch[i]); err != nil {
			return nil, err
		}
	}
	return fates, w.flush()
}

// one writes a transition but for its event, which is queued.
func (w *writer) one(t *flow.Transition) (fate, err error) {
	r := &t.Row
	if r.State.Ended() == r.Ended.IsZero() {
		return nil, fmt.Errorf("CHECK: execution %s is %s and ended at %v", r.ID, r.State, r.Ended)
	}
	event := w.next + 1
	if len(t.Take) > 0 {
		if fate, err := w.held(t); err != nil || fate != nil {
			return fate, err
		}
	}
	var at place
	if t.Prev == 0 {
		at, fate, err = w.create(r, event)
	} else {
		at, fate, err = w.move(r, t.Prev, event)
	}
	if err != nil || fate != nil {
		return fate, err
	}
	w.next = event
	var prev any
	if t.Prev > 0 {
		prev = at.last
		if t.Record.Seq>>markEvery != t.Prev>>markEvery {
			if _, err := w.mark.Exec(at.n, t.Record.Seq, event); err != nil {
				return nil, err
			}
		}
	}
	w.queue = append(w.queue, event, at.n, prev, t.Record.Seq, t.Record.At.UnixMicro(), pack(t.Record.Body))
	if err := w.keep(t); err != nil {
		return nil, err
	}
	for _, notice := range t.Notices {
		body, err := json.Marshal(notice)
		if err != nil {
			return nil, err
		}
		if _, err := w.notice.Exec(notice.ID, body); err != nil {
			return nil, err
		}
	}
	for _, tag := range t.Tags {
		if _, err := w.tag.Exec(tag.Name, tag.Value, r.ID); err != nil {
			return nil, err
		}
	}
	if r.State.Ended() {
		delete(w.known, r.ID)
	} else {
		w.known[r.ID] = place{n: at.n, seq: r.Seq, last: event, version: r.Version}
	}
	return nil, nil
}

// create writes the rows of a new execution.
func (w *writer) create(r *flow.Row, event int64) (at place, fate, err error) {
	result, err := w.insert.Exec(r.ID, r.Flow, text(r.Key), text(r.Parent), r.Actor, r.Reason, r.Started.UnixMicro(), micros(r.Ended))
	if err != nil {
		return at, nil, err
	}
	if taken, err := result.RowsAffected(); err != nil || taken == 0 {
		return at, flow.ErrExists, err
	}
	if at.n, err = result.LastInsertId(); err != nil {
		return at, nil, err
	}
	_, err = w.first.Exec(append(changing(r), event, at.n)...)
	return at, nil, err
}

// move brings the row of an execution up to date; at is where it stood before.
func (w *writer) move(r *flow.Row, prev, event int64) (at place, fate, err error) {
	at, found := w.known[r.ID]
	if !found || at.seq != prev {
		err := w.find.QueryRow(r.ID).Scan(&at.n, &at.seq, &at.last, &at.version, &at.ended)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return at, flow.ErrStale, nil
		case err != nil:
			return at, nil, err
		}
	}
	var result sql.Result
	if r.State == flow.Running && r.Wake == (flow.Wake{Kind: flow.WakeLease}) && !r.Paused && r.Error == "" && r.Version == at.version {
		result, err = w.step.Exec(r.Step, r.Seq, r.Updated.UnixMicro(), event, at.n, prev)
	} else {
		result, err = w.update.Exec(append(changing(r), event, at.n, prev)...)
	}
	if err != nil {
		return at, nil, err
	}
	if taken, err := result.RowsAffected(); err != nil || taken == 0 {
		delete(w.known, r.ID)
		return at, flow.ErrStale, err
	}
	if r.State.Ended() || at.ended { // it ends; or it had ended, and is turned back
		_, err = w.ended.Exec(micros(r.Ended), at.n)
	}
	return at, nil, err
}

// remove deletes what has ended of these executions, and returns how many.
func (w *writer) remove(ids []string) (removed int, err error) {
	for _, id := range ids {
		var at place
		err := w.find.QueryRow(id).Scan(&at.n, &at.seq, &at.last, &at.version, &at.ended)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && !at.ended:
			continue
		case err != nil:
			return 0, err
		}
		for _, statement := range w.unmake {
			if _, err := statement.Exec(at.n); err != nil {
				return 0, err
			}
		}
		removed++
	}
	return removed, nil
}

// changing are the columns of flow_now up to last.
func changing(r *flow.Row) []any {
	return append(make([]any, 0, 13), r.Version, string(r.State), r.Paused, r.Step, string(r.Wake.Kind), micros(r.Wake.At), text(r.Wake.For),
		r.Seq, r.Updated.UnixMicro(), text(r.Error))
}

// flush writes the events that are queued.
func (w *writer) flush() error {
	left := w.queue
	for _, one := range w.events {
		for size := one.size * eventColumns; len(left) >= size; left = left[size:] {
			if _, err := one.statement.Exec(left[:size]...); err != nil {
				return err
			}
		}
	}
	return nil
}

func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}
