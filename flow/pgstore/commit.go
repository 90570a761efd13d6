package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Commit implements flow.Store. Transitions that build on one another in the usual way, and that is nearly always, take one statement.
func (s *Store) Commit(ctx context.Context, batch []flow.Transition) ([]error, error) {
	fates := make([]error, len(batch))
	err := s.writer.do(ctx, func(ctx context.Context, conn *pgx.Conn, again bool) error {
		clear(fates)
		var left []int
		for i := range batch {
			locks := len(batch[i].Take)+len(batch[i].Drop) > 0
			if locks || len(left) > 0 && batch[i].Row.Owner != batch[left[0]].Row.Owner {
				if err := s.plain(ctx, conn, batch, left, fates); err != nil {
					return err
				}
				left = left[:0]
			}
			if !locks {
				left = append(left, i)
			} else if err := s.locking(ctx, conn, batch, i, fates); err != nil {
				return err
			}
		}
		if err := s.plain(ctx, conn, batch, left, fates); err != nil || !again {
			return err
		}
		return stored(ctx, conn, batch, fates)
	})
	if err != nil {
		return nil, fmt.Errorf("pgstore: commit: %w", err)
	}
	return fates, nil
}

// stored clears the fates of transitions that look refused because an earlier try, whose answer was lost, has stored them.
func stored(ctx context.Context, conn *pgx.Conn, batch []flow.Transition, fates []error) error {
	var at []int32
	var id, body []string
	var seq []int64
	var when []time.Time
	for i, fate := range fates {
		if fate == nil {
			continue
		}
		t := &batch[i]
		at, id, seq, when, body = append(at, int32(i)), append(id, t.Row.ID), append(seq, t.Record.Seq), append(when, t.Record.At), append(body, storable(string(t.Record.Body)))
	}
	if len(at) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `SELECT t.at FROM unnest($1::int[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[]) AS t (at, id, seq, "when", body)
		JOIN flow_event e ON e.id = t.id AND e.seq = t.seq AND e.at = t."when" AND e.body::text = t.body`, at, id, seq, when, body)
	if err != nil {
		return err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	for _, i := range there {
		fates[i] = nil
	}
	return err
}

// plain writes transitions of one owner that touch no lock.
func (s *Store) plain(ctx context.Context, conn *pgx.Conn, batch []flow.Transition, left []int, fates []error) error {
	for len(left) > 0 {
		chains, rest := chain(batch, left)
		undecided, err := s.write(ctx, conn, true, batch, chains, fates)
		if err != nil {
			return err
		}
		left = slices.Sorted(slices.Values(append(undecided, rest...)))
	}
	return nil
}

// chain sorts the transitions left into chains, one for each execution: each but the first follows the one before. The rest does not
// follow what is in the chains, and is decided on what they leave behind.
func chain(batch []flow.Transition, left []int) (chains [][]int, rest []int) {
	of := make(map[string]int, len(left))
	for _, i := range left {
		t := &batch[i]
		n, known := of[t.Row.ID]
		if !known {
			of[t.Row.ID] = len(chains)
			chains = append(chains, []int{i})
			continue
		}
		last := chains[n][len(chains[n])-1]
		if t.Prev == 0 || t.Prev != batch[last].Row.Seq {
			rest = append(rest, i)
			continue
		}
		chains[n] = append(chains[n], i)
	}
	return chains, rest
}

// write sends chains of one owner in one statement and sets the fates of those that are decided. What hung on a transition that was refused is
// returned: it is to be decided on its own. keeps says that the connection keeps prepared statements.
func (s *Store) write(ctx context.Context, conn *pgx.Conn, keeps bool, batch []flow.Transition, chains [][]int, fates []error) (undecided []int, err error) {
	b := s.batch(batch[chains[0][0]].Row.Owner)
	defer s.done(b)
	of := make(map[string]int, len(chains)) // chains by execution, but those that are taken
	for n, chain := range chains {
		if err := b.add(batch, chain); err != nil {
			return nil, err
		}
		of[batch[chain[0]].Row.ID] = n
	}
	wake := false // somebody waits for the answer, or has to claim it
	if err := b.run(ctx, conn, keeps, s.statement(b), func(id []byte) {
		n, ours := of[string(id)]
		if !ours {
			return
		}
		delete(of, string(id))
		chain := chains[n]
		wake = wake || b.owner == 0 && batch[chain[0]].Prev == 0 || slices.ContainsFunc(chain, func(i int) bool { return len(batch[i].Answers) > 0 })
	}); err != nil {
		return nil, err
	}
	if wake {
		if err := s.wake(ctx, conn); err != nil {
			return nil, err
		}
	}
	for _, n := range of {
		chain := chains[n]
		fates[chain[0]] = flow.ErrStale
		if batch[chain[0]].Prev == 0 {
			fates[chain[0]] = flow.ErrExists
		}
		undecided = append(undecided, chain[1:]...)
	}
	if len(of) > 0 {
		err = fenced(ctx, conn, batch, chains, fates)
	}
	return undecided, err
}

// fenced tells the transitions that were refused because their owner is gone, or another's is the execution, from those that are stale.
func fenced(ctx context.Context, conn *pgx.Conn, batch []flow.Transition, chains [][]int, fates []error) error {
	var at []int32
	var id []string
	var owner []int64
	var prev []int64
	for _, chain := range chains {
		if i := chain[0]; fates[i] != nil {
			at, id, owner, prev = append(at, int32(i)), append(id, batch[i].Row.ID), append(owner, batch[i].Row.Owner), append(prev, batch[i].Prev)
		}
	}
	rows, err := conn.Query(ctx, `SELECT t.at FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[]) AS t (at, id, owner, prev) LEFT JOIN flow_run r ON r.id = t.id
		WHERE t.owner <> 0 AND NOT EXISTS (SELECT FROM flow_member m WHERE m.id = t.owner)
			OR t.prev <> 0 AND r.open AND coalesce(r.owner, 0) <> t.owner`, at, id, owner, prev)
	if err != nil {
		return err
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	for _, i := range gone {
		fates[i] = flow.ErrFenced
	}
	return err
}

// PutDefinition implements flow.Store.
func (s *Store) PutDefinition(ctx context.Context, r flow.DefinitionRecord) error {
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	err := s.retry(ctx, func(conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, `WITH made AS (
				INSERT INTO flow_definition (name, version, digest, source, saved_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING name
			) SELECT pg_notify($6, '') FROM made`, r.Name, r.Version, r.Digest, r.Source, r.SavedAt, s.channel.Load())
		if err == nil && tag.RowsAffected() == 0 {
			return flow.ErrExists
		}
		return err
	})
	if err != nil && !errors.Is(err, flow.ErrExists) {
		return fmt.Errorf("pgstore: put definition %s: %w", r.Name, err)
	}
	return err
}

// Delivered implements flow.Store.
func (s *Store) Delivered(ctx context.Context, id string) error {
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	err := s.retry(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "DELETE FROM flow_notice WHERE id = $1", id)
		return err
	})
	if err != nil {
		return fmt.Errorf("pgstore: delivered %s: %w", id, err)
	}
	return nil
}

// Remove implements flow.Store.
func (s *Store) Remove(ctx context.Context, ids []string) (removed int, err error) {
	if err := s.prepare(ctx); err != nil {
		return 0, fmt.Errorf("pgstore: %w", err)
	}
	err = s.once(ctx, func(conn *pgx.Conn) error { // not tried again: it would count what is gone as never there
		return conn.QueryRow(ctx, `
			WITH gone AS (DELETE FROM flow_run WHERE id = ANY($1::text[]) AND NOT open RETURNING id),
			events AS (DELETE FROM flow_event WHERE id IN (SELECT id FROM gone)),
			tags AS (DELETE FROM flow_tag WHERE id IN (SELECT id FROM gone)),
			letters AS (DELETE FROM flow_letter WHERE execution IN (SELECT id FROM gone))
			SELECT count(*) FROM gone`, ids).Scan(&removed)
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: remove: %w", err)
	}
	return removed, nil
}
