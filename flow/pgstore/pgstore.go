// Package pgstore keeps flows in PostgreSQL, for one engine or for several that share it. Everything that arrives together is committed by one statement with array
// parameters: one round trip and one synced write for the whole batch.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Store is a flow.Shared in a PostgreSQL database, release 13 or later. It is safe for concurrent use. An engine has a Store of its own; engines that share flows
// have Stores on the same schema.
//
// A database that goes away and comes back is waited for: commits until their context ends, reads for half a minute. A commit that was under way is made
// again, and one that turns out to have been stored is not stored twice.
type Store struct {
	pool  *pgxpool.Pool
	owned atomic.Bool // Open made the pool

	life    context.Context // ends with Close
	end     context.CancelFunc
	ready   atomic.Bool  // the tables are there
	member  atomic.Int64 // the last that joined
	unsure  atomic.Bool  // a claim's answer was lost
	channel atomic.Value // string: on which members wake one another

	statements [1 << parts]atomic.Pointer[string] // by the parts of a batch; made when they are first needed
	spare      sync.Pool                          // of *batch

	writer line // commits
	pulse  line // beats and claims, which must not wait behind commits and reads
}

var _ flow.Shared = (*Store)(nil)

// New returns a store in the caller's database, which stays the caller's to close, after the store. Tables are made at first use, in the first
// schema of the connection's search_path. The server must run with fsync on and the connections with synchronous_commit on; anything less is an
// error at first use. The pool must allow for three connections more than its other users need.
func New(pool *pgxpool.Pool) *Store {
	s := &Store{pool: pool}
	s.life, s.end = context.WithCancel(context.Background())
	s.writer, s.pulse = newLine(s, true), newLine(s, false)
	return s
}

// Open connects to dsn (a URL or keywords, as libpq's) and makes the tables. Close it.
func Open(ctx context.Context, dsn string) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("pgstore: open: %w", err) // pgx leaves the password out of its errors
	}
	config.MaxConns = max(config.MaxConns, 8)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("pgstore: open: %w", err)
	}
	s := New(pool)
	s.owned.Store(true)
	if err := s.prepare(ctx); err != nil {
		s.Close()
		if transient(err) {
			return nil, fmt.Errorf("pgstore: open: %w: PostgreSQL is away or starts; try again when it answers", err)
		}
		return nil, fmt.Errorf("pgstore: open: %w", err)
	}
	return s, nil
}

// Close ends the store's connections, and closes the pool if Open made it. It is idempotent.
func (s *Store) Close() error {
	s.end()
	err := errors.Join(s.writer.close(), s.pulse.close())
	if s.owned.Swap(false) {
		s.pool.Close()
	}
	return err
}

// errClosed says that the store was closed.
var errClosed = errors.New("pgstore: the store is closed")

// prepare makes the tables, and is done for good when it has once succeeded: until then a database that does not answer is an error at once.
func (s *Store) prepare(ctx context.Context) error {
	if s.ready.Load() {
		return nil
	}
	return s.writer.do(ctx, func(context.Context, *pgx.Conn, bool) error { return nil })
}

// line is a connection for one purpose, made again when it breaks.
type line struct {
	store  *Store
	writes bool          // the writer's: its statements are not cut off when the caller goes away, which would take the connection with them
	turn   chan struct{} // holds one: whoever has it uses conn
	conn   *pgxpool.Conn // nil: to be made
}

func newLine(s *Store, writes bool) line {
	l := line{store: s, writes: writes, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// attemptFor bounds how long one try may take: a database that hangs is as one that is gone.
const attemptFor = 15 * time.Second

// do runs fn with the connection, again and again while the database is away and ctx has not ended. again says that an earlier try may have been carried
// out.
func (l *line) do(ctx context.Context, fn func(ctx context.Context, conn *pgx.Conn, again bool) error) error {
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	again := false
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if l.store.life.Err() != nil {
			return errClosed
		}
		err := l.try(ctx, fn, &again)
		if err == nil || !l.store.ready.Load() || !transient(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-l.store.life.Done():
			return errors.Join(errClosed, err)
		}
	}
}

// try is one try of do. A connection that broke is thrown away.
func (l *line) try(ctx context.Context, fn func(context.Context, *pgx.Conn, bool) error, again *bool) error {
	if l.writes {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptFor)
	defer cancel()
	if l.conn == nil {
		if err := l.connect(ctx); err != nil {
			return err
		}
	}
	err := fn(ctx, l.conn.Conn(), *again)
	if err != nil && l.conn.Conn().IsClosed() {
		*again = true
		l.conn.Release()
		l.conn = nil
		return &broken{err}
	}
	return err
}

// connect takes a connection out of the pool. The writer's checks that the database is durable, makes the tables, and holds the locks.
func (l *line) connect(ctx context.Context) (err error) {
	s := l.store
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return &broken{err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, conn.Hijack().Close(context.WithoutCancel(ctx)))
		}
	}()
	if err := conn.Ping(ctx); err != nil { // it may be one of those that broke with the last
		return &broken{err}
	}
	if l.writes {
		if err := s.setUp(ctx, conn.Conn()); err != nil {
			return err
		}
	}
	l.conn = conn
	return nil
}

// setUp prepares the writer's connection.
func (s *Store) setUp(ctx context.Context, conn *pgx.Conn) error {
	var fsync, commit, pages, channel string
	if err := conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
		'zhiyun_flow_' || to_hex(hashtext(coalesce(current_schema(), '')))`).Scan(&fsync, &commit, &pages, &channel); err != nil {
		return err
	}
	if fsync != "on" || commit == "off" || pages != "on" {
		return fmt.Errorf("the database is not durable: fsync is %s, synchronous_commit %s and full_page_writes %s; set all three to on", fsync, commit, pages)
	}
	if err := migrate(ctx, conn); err != nil {
		return err
	}
	if member := s.member.Load(); member != 0 {
		if err := holdMember(ctx, conn, member); err != nil {
			return err
		}
	}
	// The statement of a commit is planned once: planning it costs more than running it. It is planned when the tables may be empty, so that reading them whole looks
	// cheap, and runs when they are not: what it joins with them has to be looked up row by row. A process that is stopped within a transaction must
	// not hold what it has locked.
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET idle_in_transaction_session_timeout = '1s'"); err != nil {
		return err
	}
	s.channel.Store(channel)
	s.ready.Store(true)
	return nil
}

// close ends the connection with its locks; it is not handed to another user of the pool.
func (l *line) close() error {
	<-l.turn
	defer func() { l.turn <- struct{}{} }()
	if l.conn == nil {
		return nil
	}
	err := l.conn.Hijack().Close(context.Background())
	l.conn = nil
	return err
}
