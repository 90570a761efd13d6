// Package sqlitestore keeps flows in SQLite: durable, in one file, with one writer that commits everything that arrives
// together in one synced write.
package sqlitestore

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed schema.sql
var schema string

//go:embed schema2.sql
var schema2 string

//go:embed schema3.sql
var schema3 string

// upgrades bring tables from version 1 to 2, from 2 to 3, and so on.
var upgrades = []string{schema2, schema3, schemaLocks}

// Versions of the tables: that which schema makes, and that which this program knows.
const (
	firstVersion  = 2
	schemaVersion = 4
)

// Store is a flow.Store in an SQLite database. It is safe for concurrent use.
type Store struct {
	db    *sql.DB
	owned *os.File // the lock file, when Open made the database

	prepared atomic.Bool // the tables are there

	write sync.Mutex // held over a commit; guards what follows
	conn  *sql.Conn  // the writer, set up by prepare
	begin, rollback, end,
	insert, update, finish, event, notice, tag *sql.Stmt
}

// New returns a store in the caller's database, which stays the caller's to close, after the store. Tables are made at first use. The database must be in
// journal mode WAL with synchronous FULL (or EXTRA) on every connection, as Open's are; anything less is an error at first use.
func New(db *sql.DB) *Store { return &Store{db: db} }

// Open opens or makes the file at path, durable (journal mode WAL, synchronous FULL), for this process alone. Close it.
func Open(path string) (*Store, error) {
	if strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("sqlitestore: open %q: a path must not hold ? or #", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("sqlitestore: open: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: open %s: %w", path, err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("sqlitestore: open %s: %w", path, err)
	}
	db.SetMaxOpenConns(8)
	s := &Store{db: db, owned: lock}
	if err := s.locked(context.Background(), func() error { return nil }); err != nil {
		s.Close()
		return nil, fmt.Errorf("sqlitestore: open %s: %w", path, err)
	}
	return s, nil
}

// Close ends the writer, and closes the database if Open opened it. It is idempotent.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	var faults []error
	if s.conn != nil {
		for _, statement := range []*sql.Stmt{s.insert, s.update, s.finish, s.event, s.notice, s.tag, s.begin, s.rollback, s.end} {
			faults = append(faults, statement.Close())
		}
		faults = append(faults, s.conn.Close())
		s.conn = nil
	}
	if s.owned != nil {
		faults = append(faults, s.db.Close(), s.owned.Close())
		s.owned = nil
	}
	return errors.Join(faults...)
}

// locked runs fn with the writer.
func (s *Store) locked(ctx context.Context, fn func() error) error {
	s.write.Lock()
	defer s.write.Unlock()
	if s.conn == nil {
		if err := s.prepare(ctx); err != nil {
			return err
		}
	}
	return fn()
}

// prepare takes the writer's connection, checks that it is durable, and makes the tables.
func (s *Store) prepare(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx) // the connection outlives the call
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	var journal, version string
	var sync int
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&sync); err != nil {
		return err
	}
	if journal != "wal" || sync < 2 {
		return fmt.Errorf("the database is not durable: journal_mode is %s and synchronous %d; open it with _pragma=journal_mode(wal)&_pragma=synchronous(full)", journal, sync)
	}
	if err := conn.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if err := checkRelease(version); err != nil {
		return err
	}
	if err := migrate(ctx, conn); err != nil {
		return err
	}
	for _, one := range []struct {
		into  **sql.Stmt
		query string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.end, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.insert, `INSERT INTO flow_run (state, paused, step, wake, wake_at, wake_for, seq, updated, error, ended, id, flow, version, key, parent, actor, reason, started)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`},
		{&s.update, `UPDATE flow_run SET state = ?, paused = ?, step = ?, wake = ?, wake_at = ?, wake_for = ?, seq = ?, updated = ?, error = ?
			WHERE id = ? AND seq = ? AND ended IS NULL`},
		{&s.finish, `UPDATE flow_run SET state = ?, paused = ?, step = ?, wake = ?, wake_at = ?, wake_for = ?, seq = ?, updated = ?, error = ?, ended = ?
			WHERE id = ? AND seq = ?`},
		{&s.event, `INSERT INTO flow_event (id, seq, at, body) VALUES (?, ?, ?, ?)`},
		{&s.notice, `INSERT INTO flow_notice (id, body) VALUES (?, ?)`},
		{&s.tag, `INSERT INTO flow_tag (name, value, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`},
	} {
		if *one.into, err = conn.PrepareContext(ctx, one.query); err != nil {
			return err
		}
	}
	s.conn = conn
	s.prepared.Store(true)
	return nil
}

// checkRelease refuses SQLite up to 3.51.2, whose WAL may be corrupted when it is reset.
func checkRelease(version string) error {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("SQLite says that its version is %q", version)
	}
	if major*1_000_000+minor*1000+patch <= 3_051_002 {
		return fmt.Errorf("SQLite %s can corrupt its log (mended in 3.51.3); link a newer driver", version)
	}
	return nil
}

// migrate brings the tables up to date.
func migrate(ctx context.Context, conn *sql.Conn) (err error) {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK") // the first error is the one to tell
		}
	}()
	if _, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS flow_schema (version INTEGER NOT NULL)"); err != nil {
		return err
	}
	var version int
	if err := conn.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM flow_schema").Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return fmt.Errorf("the tables are of version %d, this program knows versions up to %d: run a newer program", version, schemaVersion)
	}
	var steps []string
	from := version
	if version == 0 {
		steps, from = append(steps, schema), firstVersion
	}
	for _, step := range append(steps, upgrades[from-1:]...) {
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("bring the tables up to date: %w", err)
		}
	}
	if version != schemaVersion {
		if _, err := conn.ExecContext(ctx, "INSERT INTO flow_schema (version) VALUES (?)", schemaVersion); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

// Commit implements flow.Store.
func (s *Store) Commit(ctx context.Context, batch []flow.Transition) (fates []error, err error) {
	fates = make([]error, len(batch))
	err = s.locked(ctx, func() error {
		if _, err := s.begin.Exec(); err != nil {
			return err
		}
		for i := range batch {
			if fates[i], err = s.apply(&batch[i]); err != nil {
				break
			}
		}
		if err == nil {
			_, err = s.end.Exec()
		}
		if err != nil {
			_, _ = s.rollback.Exec() // a failed COMMIT may have ended the transaction already
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: commit: %w", err)
	}
	return fates, nil
}

// apply writes one transition; fate says that it is refused.
func (s *Store) apply(t *flow.Transition) (fate, err error) {
	r := &t.Row
	row := make([]any, 0, 18)
	row = append(row, string(r.State), r.Paused, r.Step, string(r.Wake.Kind), micros(r.Wake.At), text(r.Wake.For), r.Seq, r.Updated.UnixMicro(), text(r.Error))
	if fate, err := s.held(t); fate != nil || err != nil {
		return fate, err
	}
	var taken bool
	switch {
	case t.Prev == 0:
		taken, err = affects(s.insert, append(row, micros(r.Ended), r.ID, r.Flow, r.Version, text(r.Key), text(r.Parent), r.Actor, r.Reason, r.Started.UnixMicro()))
		fate = flow.ErrExists
	default:
		if r.Ended.IsZero() {
			taken, err = affects(s.update, append(row, r.ID, t.Prev))
		}
		if !taken && err == nil { // it ends; or it had ended, and is turned back
			taken, err = affects(s.finish, append(row, micros(r.Ended), r.ID, t.Prev))
		}
		fate = flow.ErrStale
	}
	if err != nil || !taken {
		return fate, err
	}
	if err := s.keep(t); err != nil {
		return nil, err
	}
	if _, err := s.event.Exec(r.ID, t.Record.Seq, t.Record.At.UnixMicro(), t.Record.Body); err != nil {
		return nil, err
	}
	for _, notice := range t.Notices {
		body, err := json.Marshal(notice)
		if err != nil {
			return nil, err
		}
		if _, err := s.notice.Exec(notice.ID, body); err != nil {
			return nil, err
		}
	}
	for _, tag := range t.Tags {
		if _, err := s.tag.Exec(tag.Name, tag.Value, r.ID); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// affects runs a statement and reports whether it changed a row.
func affects(statement *sql.Stmt, args []any) (bool, error) {
	result, err := statement.Exec(args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
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
