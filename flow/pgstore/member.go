package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// memberSpace is the first key of the advisory lock that a member's writing connection holds, shared, for as long as it lives: "zhme". The second is the
// member's number. Where it is free, the connection is gone.
const memberSpace = 0x7a686d65

func holdMember(ctx context.Context, conn *pgx.Conn, member int64) error {
	_, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1, ($2::bigint % 2147483647)::int)", memberSpace, member)
	return err
}

// Join implements flow.Shared.
func (s *Store) Join(ctx context.Context, name string, lease time.Duration) (member int64, err error) {
	err = s.writer.do(ctx, func(ctx context.Context, conn *pgx.Conn, _ bool) error {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `WITH same AS MATERIALIZED (SELECT id FROM flow_member WHERE name = $1),
				dead AS MATERIALIZED (SELECT id FROM same WHERE pg_try_advisory_xact_lock($2, (id % 2147483647)::int))
				DELETE FROM flow_member WHERE id IN (SELECT id FROM dead)`, name, memberSpace)
			if err != nil {
				return err
			}
			return tx.QueryRow(ctx, "INSERT INTO flow_member (name, lease) VALUES ($1, $2) RETURNING id", name, lease).Scan(&member)
		})
		if err != nil {
			return err
		}
		// A join whose answer was lost leaves a member that nobody is; its lease runs out.
		s.unsure.Store(false)
		if before := s.member.Swap(member); before != 0 {
			if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock_shared($1, ($2::bigint % 2147483647)::int)", memberSpace, before); err != nil {
				return err
			}
		}
		if err := holdMember(ctx, conn, member); err != nil {
			return err
		}
		return s.wake(ctx, conn)
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: join: %w", err)
	}
	return member, nil
}

// beat renews the lease and removes those whose lease has run out, unless its own had: then the database was away, or this process, and
// the others have to be given time. Those that just write are left for the next beat.
const beat = `
WITH was AS (
	SELECT id, seen + lease > clock_timestamp() AS fresh FROM flow_member WHERE id = $1 FOR NO KEY UPDATE
), me AS (
	UPDATE flow_member m SET seen = clock_timestamp() FROM was WHERE m.id = was.id RETURNING was.fresh
), silent AS (
	SELECT id FROM flow_member WHERE id <> $1 AND seen + lease < clock_timestamp() AND (SELECT fresh FROM me) FOR UPDATE SKIP LOCKED
), gone AS (
	DELETE FROM flow_member m USING silent WHERE m.id = silent.id RETURNING m.id
)
SELECT array(SELECT id FROM gone) FROM me`

// Owners of open executions are few: each is found by one descent of the index, whatever the number of executions.
const owners = `
WITH RECURSIVE owner AS (
	(SELECT min(owner) AS id FROM flow_run WHERE open)
	UNION ALL
	SELECT (SELECT min(owner) FROM flow_run WHERE open AND owner > o.id) FROM owner o WHERE o.id IS NOT NULL
)`

const look = owners + `
SELECT (SELECT count(*) FROM flow_member), (SELECT min(id) = $1 FROM flow_member),
	coalesce((SELECT extract(epoch FROM min(seen + lease) - clock_timestamp()) FROM flow_member WHERE id <> $1)::float8, 0),
	EXISTS (SELECT FROM flow_run WHERE open AND owner IS NULL)
		OR EXISTS (SELECT FROM owner o WHERE o.id IS NOT NULL AND NOT EXISTS (SELECT FROM flow_member m WHERE m.id = o.id))`

const letters = `
SELECT l.id, l.execution, l.body::text FROM flow_letter l JOIN flow_run r ON r.id = l.execution
WHERE l.answer IS NULL AND r.open AND r.owner = $1 ORDER BY l.id LIMIT 100`

// Beat implements flow.Shared.
func (s *Store) Beat(ctx context.Context, member int64) (b flow.Beat, err error) {
	if err := s.prepare(ctx); err != nil {
		return b, fmt.Errorf("pgstore: beat: %w", err)
	}
	err = s.pulse.do(ctx, func(ctx context.Context, conn *pgx.Conn, _ bool) error {
		b = flow.Beat{}
		err := conn.QueryRow(ctx, beat, member).Scan(&b.Removed)
		if errors.Is(err, pgx.ErrNoRows) {
			return flow.ErrFenced
		}
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(look, member).QueryRow(func(row pgx.Row) error {
			var next float64
			err := row.Scan(&b.Members, &b.Lead, &next, &b.Orphans)
			if b.Members > 1 {
				b.Next = max(time.Duration(next*float64(time.Second)), time.Microsecond)
			}
			return err
		})
		batch.Queue(letters, member).Query(func(rows pgx.Rows) error {
			found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l flow.Letter, err error) {
				var body string
				err = row.Scan(&l.ID, &l.Execution, &body)
				l.Body = []byte(body)
				return l, err
			})
			b.Letters = found
			return err
		})
		return conn.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return flow.Beat{}, fmt.Errorf("pgstore: beat: %w", err)
	}
	b.Orphans = b.Orphans || s.unsure.Load()
	return b, nil
}

// claim takes what has no owner, or one that is gone for good: numbers are never given twice, so the list cannot be wrong by the time it is used.
const claim = `
WITH me AS MATERIALIZED (
	SELECT id FROM flow_member WHERE id = $1 FOR KEY SHARE
), free AS MATERIALIZED (
	SELECT id FROM flow_run WHERE open AND (owner IS NULL OR owner = ANY($2)) ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE flow_run r SET owner = me.id FROM free, me WHERE r.id = free.id RETURNING ` + runColumns

const mine = "SELECT " + runColumns + " FROM flow_run r WHERE open AND owner = $1"

// Claim implements flow.Shared.
func (s *Store) Claim(ctx context.Context, member int64, limit int) (claimed []flow.Row, err error) {
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("pgstore: claim: %w", err)
	}
	err = s.pulse.do(ctx, func(ctx context.Context, conn *pgx.Conn, again bool) error {
		s.unsure.CompareAndSwap(false, again)
		var there bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM flow_member WHERE id = $1)", member).Scan(&there); err != nil {
			return err
		}
		if !there {
			return flow.ErrFenced
		}
		rows, err := conn.Query(ctx, owners+"SELECT o.id FROM owner o WHERE o.id IS NOT NULL AND NOT EXISTS (SELECT FROM flow_member m WHERE m.id = o.id)")
		if err != nil {
			return err
		}
		gone, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		if rows, err = conn.Query(ctx, claim, member, gone, limit); err != nil {
			return err
		}
		if claimed, err = pgx.CollectRows(rows, scanRow); err != nil || !s.unsure.Load() {
			return err
		}
		// What was claimed and not told is among all that it owns.
		if rows, err = conn.Query(ctx, mine, member); err != nil {
			return err
		}
		claimed, err = pgx.CollectRows(rows, scanRow)
		return err
	})
	s.unsure.Store(err != nil && !errors.Is(err, flow.ErrFenced))
	if err != nil {
		return nil, fmt.Errorf("pgstore: claim: %w", err)
	}
	return claimed, nil
}

// Leave implements flow.Shared.
func (s *Store) Leave(ctx context.Context, member int64) error {
	err := s.retry(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "DELETE FROM flow_member WHERE id = $1", member); err != nil {
			return err
		}
		return s.wake(ctx, conn)
	})
	if err != nil {
		return fmt.Errorf("pgstore: leave: %w", err)
	}
	return nil
}
