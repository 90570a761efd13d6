// Package sqlitestore keeps flows in SQLite: durable, in one file, with one writer that commits everything that arrives
// together in one synced write.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
)

// Store is a flow.Store in an SQLite database. It is safe for concurrent use.
type Store struct {
	db    *sql.DB
	owned *os.File // the lock file, when Open made the database

	prepared atomic.Bool // the tables are there

	write sync.Mutex // held over a commit; guards what follows
	conn  *sql.Conn  // the writer, set up by prepare
	writer
}

// Options are what Open appends to the name of its database, for an embedder's own: "file:orders.db?"+Options. It is durable. Its pages, which only a new
// database takes on, are small, since a commit logs each page that it changes: of 4 KiB, they are twice as many bytes with 64 executions in flight, and
// three times with one.
const Options = "_pragma=page_size(1024)&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_txlock=immediate"

// checkpointed is how many pages of its log Open's database gathers before it puts them in their places.
const checkpointed = "4000"

// New returns a store in the caller's database, which stays the caller's to close, after the store. Tables are made at first use. The database must be in
// journal mode WAL with synchronous FULL (or EXTRA) on every connection, as Options make it; anything less is an error at first use.
func New(db *sql.DB) *Store { return &Store{db: db} }

// Open opens or makes the file at path, durable (journal mode WAL, synchronous FULL), for this process alone. Close it.
func Open(path string) (*Store, error) {
	if strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("sqlitestore: open %q: a path must not hold ? or #", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("sqlitestore: open: %w", err)
	}
	lock, err := lockfile.Take(path + ".lock")
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, fmt.Errorf("sqlitestore: another process has the store open (%w); stop it first", err)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: open %s: %w", path, err)
	}
	// Parameters that are secrets stand in it as they are: it is its owner's alone, and so is what SQLite lays beside it, which takes the file's mode.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("sqlitestore: open: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?"+Options+"&_pragma=cache_size(-1000)&_pragma=wal_autocheckpoint("+checkpointed+")")
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
		faults = append(faults, s.writer.close(), s.conn.Close())
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
		return notDurable(journal, sync)
	}
	// An embedder's transaction is waited for; SQLite's default is to fail.
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 10000"); err != nil {
		return err
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
	if err := s.writer.prepare(ctx, conn); err != nil {
		return err
	}
	s.conn = conn
	s.prepared.Store(true)
	return nil
}

func notDurable(journal string, sync int) error {
	return fmt.Errorf("the database is not durable: journal_mode is %s and synchronous %d; open it with sqlitestore.Options", journal, sync)
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
