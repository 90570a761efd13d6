package pgstore

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// broken is the failure of a connection, as opposed to one of a statement.
type broken struct{ err error }

func (b *broken) Error() string { return b.err.Error() }
func (b *broken) Unwrap() error { return b.err }

// transient reports whether the database may well answer the same thing otherwise in a moment: it starts, stops, recovers, has no room, or the
// connection to it broke.
func transient(err error) bool {
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		switch {
		case pg.Code == "57014": // cancelled, as by statement_timeout: it would be again
			return false
		case pg.Code == "25006": // read-only: a standby that is not promoted yet
			return true
		}
		for _, class := range []string{"08", "40", "53", "57"} { // connection, conflict, resources, operator
			if strings.HasPrefix(pg.Code, class) {
				return true
			}
		}
		return false
	}
	gone := (*broken)(nil)
	return errors.As(err, &gone)
}

// readFor is how long a read waits for a database that is away.
const readFor = 30 * time.Second

// retry runs a read, or another thing that may be done twice, on a connection of the pool until the database answers, ctx ends or readFor is over.
func (s *Store) retry(ctx context.Context, fn func(*pgx.Conn) error) error {
	end := time.Now().Add(readFor)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.once(ctx, fn)
		if err == nil || ctx.Err() != nil || s.life.Err() != nil || !transient(err) || time.Now().Add(wait).After(end) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		case <-s.life.Done():
			return err
		}
	}
}

func (s *Store) once(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return &broken{err}
	}
	defer conn.Release()
	if err = fn(conn.Conn()); err != nil && conn.Conn().IsClosed() {
		return &broken{err}
	}
	return err
}
