package pgstore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// part is one thing that the statement of a batch does. A statement has those parts that its batch needs: each costs PostgreSQL as much to set up as
// to run for several rows.
type part int

const (
	moved   part = iota // executions brought up to date, with a record each
	made                // executions created
	records             // more records of both
	notices
	answers
	tags
	parts
)

// write is a part as it stands in the statement, in which "rows" are those of the batch.
type write struct{ columns, sql string }

// writes are the parts in the order of their parameters. What of a batch is taken is what the first two return; the rest is written for those alone.
var writes = [parts]write{
	moved: {
		"id text, prev bigint, state text, paused bool, step text, wake text, wake_at timestamptz, wake_for text, seq bigint, updated timestamptz, ended timestamptz, " +
			"error text, version int, at timestamptz, body json", `moved AS (
	UPDATE flow_run r
	SET state = t.state, open = t.wake <> 'none', paused = t.paused, step = t.step, wake = t.wake, wake_at = t.wake_at, wake_for = t.wake_for, seq = t.seq,
		updated = t.updated, ended = t.ended, error = t.error, owner = $1, version = t.version
	FROM rows
	WHERE r.id = t.id AND r.seq = t.prev AND (r.owner IS NOT DISTINCT FROM $1 OR NOT r.open) AND ($1 IS NULL OR EXISTS (SELECT FROM alive))
	RETURNING r.id, t.prev + 1 AS seq, t.at, t.body
), moves AS (
	INSERT INTO flow_event (id, seq, at, body) SELECT id, seq, at, body FROM moved
)`,
	},
	made: {
		"id text, flow text, version int, key text, parent text, state text, paused bool, step text, wake text, wake_at timestamptz, wake_for text, seq bigint, " +
			"actor text, reason text, started timestamptz, updated timestamptz, ended timestamptz, error text", `made AS (
	INSERT INTO flow_run (id, flow, version, key, parent, state, open, paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, owner)
	SELECT id, flow, version, key, parent, state, wake <> 'none', paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, $1
	FROM rows
	WHERE $1 IS NULL OR EXISTS (SELECT FROM alive)
	ON CONFLICT DO NOTHING
	RETURNING id, open
)`,
	},
	records: {"id text, seq bigint, at timestamptz, body json", `records AS (
	INSERT INTO flow_event (id, seq, at, body) SELECT t.id, t.seq, t.at, t.body FROM rows
	WHERE (t.id IN (SELECT id FROM taken)) IS TRUE
)`},
	notices: {"run text, id text, body json, n int", `notices AS (
	INSERT INTO flow_notice (id, body) SELECT t.id, t.body FROM rows
	WHERE (t.run IN (SELECT id FROM taken)) IS TRUE
	ORDER BY t.n
)`},
	answers: {"run text, id bigint, answer text", `answers AS (
	UPDATE flow_letter l SET answer = t.answer
	FROM rows
	WHERE l.id = t.id AND l.answer IS NULL AND (t.run IN (SELECT id FROM taken)) IS TRUE
	RETURNING l.id
)`},
	tags: {"run text, name text, value text", `tags AS (
	INSERT INTO flow_tag (name, value, id) SELECT DISTINCT t.name, t.value, t.run FROM rows
	WHERE (t.run IN (SELECT id FROM taken)) IS TRUE
	ON CONFLICT DO NOTHING
)`},
}

// statement is what writes a batch for one owner, $1, with these parts.
//
// The owner is locked as the target of a foreign key is: who removes a member waits for the statements that write for it, and a statement that comes
// later does not see it any more and writes nothing. Beats, which change no key, are not held up.
func statement(has func(part) bool) string {
	var sql strings.Builder
	sql.WriteString("WITH alive AS MATERIALIZED (SELECT FROM flow_member WHERE id = $1::bigint FOR KEY SHARE)")
	var taken []string
	param := 1
	for p := range parts {
		if p == records {
			fmt.Fprintf(&sql, ", taken AS (%s)", strings.Join(taken, " UNION ALL "))
		}
		if !has(p) {
			continue
		}
		if p < records {
			taken = append(taken, "SELECT id FROM "+[]string{moved: "moved", made: "made"}[p])
		}
		var params, names []string
		for name, element := range writes[p].each() {
			param++
			names, params = append(names, name), append(params, fmt.Sprintf("$%d::%s[]", param, element))
		}
		rows := fmt.Sprintf("FROM unnest(%s) AS t (%s)", strings.Join(params, ", "), strings.Join(names, ", "))
		sql.WriteString(", " + strings.Replace(writes[p].sql, "FROM rows", rows, 1))
	}
	sql.WriteString(" SELECT id FROM taken")
	return sql.String()
}

// each yields the names and types of the columns.
func (w *write) each() iter.Seq2[string, string] {
	return func(yield func(name, element string) bool) {
		for column := range strings.SplitSeq(w.columns, ", ") {
			name, element, _ := strings.Cut(column, " ")
			if !yield(name, element) {
				return
			}
		}
	}
}

// rows are those of one part of a batch, an array for each column.
type rows []array

// batch is what one statement writes for one owner.
type batch struct {
	owner int64 // 0 is none
	rows  [parts]rows
}

func newBatch() *batch {
	b := &batch{}
	for p := range b.rows {
		b.rows[p] = make(rows, strings.Count(writes[p].columns, ", ")+1)
	}
	return b
}

func (b *batch) reset(owner int64) {
	b.owner = owner
	for p := range b.rows {
		for i := range b.rows[p] {
			b.rows[p][i].reset()
		}
	}
}

// has reports whether there are rows of a part.
func (b *batch) has(p part) bool { return b.rows[p][0].n > 0 }

// add takes in a chain of transitions, of which each but the first follows the one before.
func (b *batch) add(batch []flow.Transition, chain []int) error {
	first, last := &batch[chain[0]], &batch[chain[len(chain)-1]]
	if first.Prev == 0 {
		b.make(&last.Row)
	} else {
		b.move(first, &last.Row)
	}
	for n, i := range chain {
		t := &batch[i]
		if n > 0 || first.Prev == 0 {
			c := b.rows[records]
			c[0].text(t.Row.ID)
			c[1].bigint(t.Record.Seq)
			c[2].instant(t.Record.At)
			c[3].json(t.Record.Body)
		}
		for _, notice := range t.Notices {
			body, err := json.Marshal(notice)
			if err != nil {
				return err
			}
			c := b.rows[notices]
			c[0].text(t.Row.ID)
			c[1].text(notice.ID)
			c[2].json(body)
			c[3].int(int(c[3].n))
		}
		for _, answer := range t.Answers {
			c := b.rows[answers]
			c[0].text(t.Row.ID)
			c[1].bigint(answer.Letter)
			c[2].text(answer.Text)
		}
		for _, tag := range t.Tags {
			c := b.rows[tags]
			c[0].text(t.Row.ID)
			c[1].text(tag.Name)
			c[2].text(tag.Value)
		}
	}
	return nil
}

func (b *batch) move(first *flow.Transition, r *flow.Row) {
	c := b.rows[moved]
	c[0].text(r.ID)
	c[1].bigint(first.Prev)
	c[2].text(string(r.State))
	c[3].bool(r.Paused)
	c[4].text(r.Step)
	c[5].text(string(r.Wake.Kind))
	c[6].instantOrNull(r.Wake.At)
	c[7].textOrNull(r.Wake.For)
	c[8].bigint(r.Seq)
	c[9].instant(r.Updated)
	c[10].instantOrNull(r.Ended)
	c[11].textOrNull(r.Error)
	c[12].int(r.Version)
	c[13].instant(first.Record.At)
	c[14].json(first.Record.Body)
}

func (b *batch) make(r *flow.Row) {
	c := b.rows[made]
	c[0].text(r.ID)
	c[1].text(r.Flow)
	c[2].int(r.Version)
	c[3].textOrNull(r.Key)
	c[4].textOrNull(r.Parent)
	c[5].text(string(r.State))
	c[6].bool(r.Paused)
	c[7].text(r.Step)
	c[8].text(string(r.Wake.Kind))
	c[9].instantOrNull(r.Wake.At)
	c[10].textOrNull(r.Wake.For)
	c[11].bigint(r.Seq)
	c[12].text(r.Actor)
	c[13].text(r.Reason)
	c[14].instant(r.Started)
	c[15].instant(r.Updated)
	c[16].instantOrNull(r.Ended)
	c[17].textOrNull(r.Error)
}

// run has a connection write the batch by its statement, in the transaction that is open there if one is, and calls taken with the ID of each execution of which something
// was written. A connection that keeps has the statement prepared once.
func (b *batch) run(ctx context.Context, conn *pgx.Conn, keeps bool, sql string, taken func(id []byte)) error {
	values := [][]byte{nil}
	if b.owner != 0 {
		values[0] = binary.BigEndian.AppendUint64(nil, uint64(b.owner))
	}
	for p := range parts {
		if !b.has(p) {
			continue
		}
		i := 0
		for _, element := range writes[p].each() {
			values = append(values, b.rows[p][i].param(elementTypes[element]))
			i++
		}
	}
	formats := []int16{pgx.BinaryFormatCode} // of every parameter
	var reader *pgconn.ResultReader
	if keeps {
		prepared, err := conn.Prepare(ctx, sql, sql)
		if err != nil {
			return err
		}
		reader = conn.PgConn().ExecPrepared(ctx, prepared.Name, values, formats, nil)
	} else {
		reader = conn.PgConn().ExecParams(ctx, sql, values, nil, formats, nil)
	}
	for reader.NextRow() {
		taken(reader.Values()[0])
	}
	_, err := reader.Close()
	return err
}

// keepBatch bounds what the spare batches of a store hold on to, in bytes of records.
const keepBatch = 1 << 20

// statement returns what writes a batch.
func (s *Store) statement(b *batch) string {
	which := 0
	for p := range parts {
		if b.has(p) {
			which |= 1 << p
		}
	}
	if made := s.statements[which].Load(); made != nil {
		return *made
	}
	sql := statement(b.has)
	s.statements[which].Store(&sql)
	return sql
}

// batch returns an empty batch for an owner; hand it to done.
func (s *Store) batch(owner int64) *batch {
	b, _ := s.spare.Get().(*batch)
	if b == nil {
		b = newBatch()
	}
	b.reset(owner)
	return b
}

func (s *Store) done(b *batch) {
	if cap(b.rows[moved][14].data)+cap(b.rows[records][3].data) <= keepBatch {
		s.spare.Put(b)
	}
}
