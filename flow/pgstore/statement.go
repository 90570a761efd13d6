package pgstore

import (
	"fmt"
	"iter"
	"strings"
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

// statement is what writes a batch for one owner, $1, with the parts of which the bits are set.
//
// The owner is locked as the target of a foreign key is: who removes a member waits for the statements that write for it, and a statement that comes
// later does not see it any more and writes nothing. Beats, which change no key, are not held up.
func statement(which int) string {
	var sql strings.Builder
	sql.WriteString("WITH alive AS MATERIALIZED (SELECT FROM flow_member WHERE id = $1::bigint FOR KEY SHARE)")
	var taken []string
	param := 1
	for p := range parts {
		if p == records {
			fmt.Fprintf(&sql, ", taken AS (%s)", strings.Join(taken, " UNION ALL "))
		}
		if which&(1<<p) == 0 {
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
