// Package pgstore keeps flows in PostgreSQL. Everything that arrives together is committed by one statement with array
// parameters: one round trip and one synced write for the whole batch.
package pgstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zhiyun-ops/zhiyun/flow"
)

//go:embed schema.sql
var schema string

//go:embed schema2.sql
var schema2 string

// upgrades make the tables of version 1, then bring them to 2, and so on.
var upgrades = []string{schema, schema2, schemaLocks}

// Store is a flow.Store in a PostgreSQL database, release 13 or later. It is safe for concurrent use.
//
// One Store at a time writes in a schema: the writer's connection holds an advisory lock, and every commit goes through that
// connection, so that a writer who has lost the lock cannot commit either.
type Store struct {
	pool  *pgxpool.Pool
	owned bool // Open made the pool

	prepared atomic.Bool // the tables are there

	write sync.Mutex    // held over a commit; guards what follows
	conn  *pgxpool.Conn // the writer, set up by prepare; holds the advisory lock
}

var _ flow.Store = (*Store)(nil)

// New returns a store in the caller's database, which stays the caller's to close, after the store. Tables are made at first use, in the first
// schema of the connection's search_path. The server must run with fsync on and the connections with synchronous_commit on; anything less is an
// error at first use. The pool must allow for one connection more than its other users need.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Open connects to dsn (a URL or keywords, as libpq's) and makes the tables. Close it.
func Open(ctx context.Context, dsn string) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("pgstore: open: %w", err) // pgx leaves the password out of its errors
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("pgstore: open: %w", err)
	}
	s := &Store{pool: pool, owned: true}
	if err := s.locked(ctx, func(context.Context) error { return nil }); err != nil {
		s.Close()
		return nil, fmt.Errorf("pgstore: open: %w", err)
	}
	return s, nil
}

// Close ends the writer, and closes the pool if Open made it. It is idempotent.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	var err error
	if s.conn != nil {
		// The connection ends with its lock, and is not handed to another user of the pool.
		err = s.conn.Hijack().Close(context.Background())
		s.conn = nil
	}
	if s.owned {
		s.pool.Close()
		s.owned = false
	}
	return err
}

// locked runs fn with the writer. What fn is given does not end with ctx: a statement that is cut off takes the connection
// with it, and the lock, and then nothing can be written any more because one caller went away.
func (s *Store) locked(ctx context.Context, fn func(context.Context) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	if s.conn == nil {
		if err := s.prepare(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fn(context.WithoutCancel(ctx))
}

// lockSpace is the first key of the advisory lock: "zhfl". The second names the schema.
const lockSpace = 0x7a68666c

// prepare takes the writer's connection, its lock, checks that it is durable, and makes the tables.
func (s *Store) prepare(ctx context.Context) (err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, conn.Hijack().Close(context.WithoutCancel(ctx)))
		}
	}()
	var fsync, commit, pages string
	var alone bool
	if err := conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
		pg_try_advisory_lock($1, hashtext(coalesce(current_schema(), '')))`, lockSpace).Scan(&fsync, &commit, &pages, &alone); err != nil {
		return err
	}
	if fsync != "on" || commit == "off" || pages != "on" {
		return fmt.Errorf("the database is not durable: fsync is %s, synchronous_commit %s and full_page_writes %s; set all three to on", fsync, commit, pages)
	}
	if !alone {
		return errors.New("another process keeps flows in this schema; end it, or give this one a schema of its own (search_path)")
	}
	if err := migrate(ctx, conn); err != nil {
		return err
	}
	// The statement of a commit is planned once: planning it costs more than running it.
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan"); err != nil {
		return err
	}
	s.conn = conn
	s.prepared.Store(true)
	return nil
}

// migrate brings the tables up to date. The writer's lock keeps others away.
func migrate(ctx context.Context, conn *pgxpool.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS flow_schema (version integer NOT NULL)"); err != nil {
			return err
		}
		var version int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM flow_schema").Scan(&version); err != nil {
			return err
		}
		switch {
		case version > len(upgrades):
			return fmt.Errorf("the tables are of version %d, this program knows versions up to %d: run a newer program", version, len(upgrades))
		case version == len(upgrades):
			return nil
		}
		for _, step := range upgrades[version:] {
			if _, err := tx.Exec(ctx, step); err != nil {
				return fmt.Errorf("bring the tables up to date: %w", err)
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO flow_schema (version) VALUES ($1)", len(upgrades))
		return err
	})
}
