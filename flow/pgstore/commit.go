package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Commit implements flow.Store. Transitions that build on one another in the usual way, and that is nearly always, take one statement.
func (s *Store) Commit(ctx context.Context, batch []flow.Transition) ([]error, error) {
	fates := make([]error, len(batch))
	err := s.writer.do(ctx, func(ctx context.Context, conn *pgx.Conn, again bool) error {
		clear(fates)
		var left []int
		for i := range batch {
			if len(batch[i].Take)+len(batch[i].Drop) == 0 {
				left = append(left, i)
				continue
			}
			if err := s.plain(ctx, conn, batch, left, fates); err != nil {
				return err
			}
			if err := s.locking(ctx, conn, batch, i, fates); err != nil {
				return err
			}
			left = left[:0]
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
		at, id, seq, when, body = append(at, int32(i)), append(id, t.Row.ID), append(seq, t.Record.Seq), append(when, t.Record.At), append(body, string(t.Record.Body))
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

// plain writes transitions that touch no lock.
func (s *Store) plain(ctx context.Context, conn *pgx.Conn, batch []flow.Transition, left []int, fates []error) error {
	for len(left) > 0 {
		chains, rest := chain(batch, left)
		undecided, err := s.write(ctx, conn, batch, chains, fates)
		if err != nil {
			return err
		}
		left = slices.Sorted(slices.Values(append(undecided, rest...)))
	}
	return nil
}

// querier is a connection, or a transaction on it.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
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

// columns are the rows of a batch, a slice for each column.
type columns struct {
	id, flow, key, parent, state, step, wake, wakeFor, actor, reason, failure []*string
	version                                                                   []int
	paused                                                                    []bool
	wakeAt, ended                                                             []*time.Time
	started, updated                                                          []time.Time
	seq, prev                                                                 []int64
	owner                                                                     []*int64
}

func (c *columns) add(prev int64, r *flow.Row) {
	c.id, c.flow, c.key, c.parent = append(c.id, &r.ID), append(c.flow, &r.Flow), append(c.key, text(r.Key)), append(c.parent, text(r.Parent))
	state, wake := string(r.State), string(r.Wake.Kind)
	c.state, c.step, c.wake, c.wakeFor = append(c.state, &state), append(c.step, &r.Step), append(c.wake, &wake), append(c.wakeFor, text(r.Wake.For))
	c.actor, c.reason, c.failure = append(c.actor, &r.Actor), append(c.reason, &r.Reason), append(c.failure, text(r.Error))
	c.version, c.paused = append(c.version, r.Version), append(c.paused, r.Paused)
	c.wakeAt, c.ended = append(c.wakeAt, instant(r.Wake.At)), append(c.ended, instant(r.Ended))
	c.started, c.updated = append(c.started, r.Started), append(c.updated, r.Updated)
	c.seq, c.prev, c.owner = append(c.seq, r.Seq), append(c.prev, prev), append(c.owner, member(r.Owner))
}

// member is an owner; NULL is none.
func member(number int64) *int64 {
	if number == 0 {
		return nil
	}
	return &number
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// The statement for a batch: rows to create, rows to bring up to date, and for those that were taken their events, notices and answers.
//
// Owners are locked as the target of a foreign key is: who removes a member waits for the statements that write for it, and a statement that comes
// later does not see it any more and writes nothing. Beats, which change no key, are not held up.
const writeAll = `
WITH alive AS MATERIALIZED (
	SELECT id FROM flow_member WHERE id = ANY($41::bigint[]) FOR KEY SHARE
), made AS (
	INSERT INTO flow_run (id, flow, version, key, parent, state, open, paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, owner)
	SELECT id, flow, version, key, parent, state, wake <> 'none', paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, owner
	FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::text[], $9::text[], $10::timestamptz[], $11::text[], $12::bigint[],
		$13::text[], $14::text[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::text[], $42::bigint[])
		AS t (id, flow, version, key, parent, state, paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, owner)
	WHERE owner IS NULL OR owner IN (SELECT id FROM alive)
	ON CONFLICT DO NOTHING
	RETURNING id, owner, open
), moved AS (
	UPDATE flow_run r
	SET state = t.state, open = t.wake <> 'none', paused = t.paused, step = t.step, wake = t.wake, wake_at = t.wake_at, wake_for = t.wake_for, seq = t.seq,
		updated = t.updated, ended = t.ended, error = t.error, owner = t.owner, version = t.version
	FROM unnest($19::text[], $20::bigint[], $21::text[], $22::bool[], $23::text[], $24::text[], $25::timestamptz[], $26::text[], $27::bigint[], $28::timestamptz[],
		$29::timestamptz[], $30::text[], $43::bigint[], $47::int[])
		AS t (id, prev, state, paused, step, wake, wake_at, wake_for, seq, updated, ended, error, owner, version)
	WHERE r.id = t.id AND r.seq = t.prev AND (r.owner IS NOT DISTINCT FROM t.owner OR NOT r.open) AND (t.owner IS NULL OR t.owner IN (SELECT id FROM alive))
	RETURNING r.id
), taken AS (
	SELECT id FROM made UNION ALL SELECT id FROM moved
), events AS (
	INSERT INTO flow_event (id, seq, at, body)
	SELECT t.id, t.seq, t.at, t.body::json FROM unnest($31::text[], $32::bigint[], $33::timestamptz[], $34::text[]) AS t (id, seq, at, body) JOIN taken USING (id)
), notices AS (
	INSERT INTO flow_notice (id, body)
	SELECT t.id, t.body::json FROM unnest($35::text[], $36::text[], $37::text[]) WITH ORDINALITY AS t (run, id, body, n) JOIN taken ON taken.id = t.run
	ORDER BY t.n
), answers AS (
	UPDATE flow_letter l SET answer = t.answer
	FROM unnest($44::text[], $45::bigint[], $46::text[]) AS t (run, id, answer) JOIN taken ON taken.id = t.run
	WHERE l.id = t.id AND l.answer IS NULL
	RETURNING l.id
), tags AS (
	INSERT INTO flow_tag (name, value, id)
	SELECT DISTINCT t.name, t.value, t.run FROM unnest($38::text[], $39::text[], $40::text[]) AS t (run, name, value) JOIN taken ON taken.id = t.run
	ON CONFLICT DO NOTHING
)
SELECT id FROM taken
UNION ALL SELECT '' WHERE EXISTS (SELECT FROM made WHERE open AND owner IS NULL) OR EXISTS (SELECT FROM answers)`

// write sends chains in one statement and sets the fates of those that are decided. What hung on a transition that was refused is
// returned: it is to be decided on its own.
func (s *Store) write(ctx context.Context, conn querier, batch []flow.Transition, chains [][]int, fates []error) (undecided []int, err error) {
	var made, moved columns
	var eventID, eventBody, noticeRun, noticeID, noticeBody, tagRun, tagName, tagValue, answerRun, answerText []string
	var eventSeq, answerID, owners []int64
	var eventAt []time.Time
	for _, chain := range chains {
		first, last := &batch[chain[0]], &batch[chain[len(chain)-1]]
		into := &moved
		if first.Prev == 0 {
			into = &made
		}
		into.add(first.Prev, &last.Row)
		if owner := last.Row.Owner; owner != 0 && !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
		for _, i := range chain {
			t := &batch[i]
			eventID, eventSeq, eventAt, eventBody = append(eventID, t.Row.ID), append(eventSeq, t.Record.Seq), append(eventAt, t.Record.At), append(eventBody, string(t.Record.Body))
			for _, notice := range t.Notices {
				body, err := json.Marshal(notice)
				if err != nil {
					return nil, err
				}
				noticeRun, noticeID, noticeBody = append(noticeRun, t.Row.ID), append(noticeID, notice.ID), append(noticeBody, string(body))
			}
			for _, answer := range t.Answers {
				answerRun, answerID, answerText = append(answerRun, t.Row.ID), append(answerID, answer.Letter), append(answerText, answer.Text)
			}
			for _, tag := range t.Tags {
				tagRun, tagName, tagValue = append(tagRun, t.Row.ID), append(tagName, tag.Name), append(tagValue, tag.Value)
			}
		}
	}
	rows, err := conn.Query(ctx, writeAll,
		made.id, made.flow, made.version, made.key, made.parent, made.state, made.paused, made.step, made.wake, made.wakeAt, made.wakeFor, made.seq,
		made.actor, made.reason, made.started, made.updated, made.ended, made.failure,
		moved.id, moved.prev, moved.state, moved.paused, moved.step, moved.wake, moved.wakeAt, moved.wakeFor, moved.seq, moved.updated, moved.ended, moved.failure,
		eventID, eventSeq, eventAt, eventBody, noticeRun, noticeID, noticeBody, tagRun, tagName, tagValue,
		owners, made.owner, moved.owner, answerRun, answerID, answerText, moved.version)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	taken := make(map[string]bool, len(ids))
	for _, id := range ids {
		taken[id] = true
	}
	if taken[""] { // somebody waits for the answer, or has to claim it
		if err := s.wake(ctx, conn); err != nil {
			return nil, err
		}
	}
	refused := false
	for _, chain := range chains {
		first := &batch[chain[0]]
		if taken[first.Row.ID] {
			continue
		}
		fates[chain[0]] = flow.ErrStale
		if first.Prev == 0 {
			fates[chain[0]] = flow.ErrExists
		}
		refused = true
		undecided = append(undecided, chain[1:]...)
	}
	if refused {
		err = fenced(ctx, conn, batch, chains, fates)
	}
	return undecided, err
}

// fenced tells the transitions that were refused because their owner is gone, or another's is the execution, from those that are stale.
func fenced(ctx context.Context, conn querier, batch []flow.Transition, chains [][]int, fates []error) error {
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
