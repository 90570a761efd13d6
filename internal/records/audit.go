package records

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Entry is one line of the audit record: who did what to what, and why.
type Entry struct {
	ID        int64           `json:"id"` // given by Audit; grows
	At        time.Time       `json:"at"` // default: now
	Actor     string          `json:"actor"`
	Action    string          `json:"action"`
	Object    string          `json:"object"` // kind/name
	Reason    string          `json:"reason,omitempty"`
	Execution string          `json:"execution,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

// Audit appends an entry; it is durable when it returns. Actor and Action are required.
func (db *DB) Audit(ctx context.Context, e Entry) error {
	if e.Actor == "" || e.Action == "" {
		return fmt.Errorf("%w: audit entry on %q has actor %q and action %q; name both", ErrInvalid, e.Object, e.Actor, e.Action)
	}
	detail, err := validDetail(e.Detail)
	if err != nil {
		return err
	}
	return db.submit(ctx, func(tx *sql.Tx) error {
		if e.At.IsZero() {
			e.At = db.config.Now()
		}
		_, err := tx.Exec(`INSERT INTO audit (at, actor, action, object, reason, execution, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			millis(e.At), e.Actor, e.Action, e.Object, e.Reason, e.Execution, detail)
		return err
	})
}

func validDetail(detail json.RawMessage) (string, error) {
	if len(detail) > 0 && !json.Valid(detail) {
		return "", fmt.Errorf("%w: detail %.40q is not JSON; marshal it", ErrInvalid, detail)
	}
	return string(detail), nil
}

// Query chooses records, newest first. Every field that is not zero must match.
type Query struct {
	Actor     string
	Object    string // exactly, or everything below it if it ends with /
	Action    string
	Execution string
	Since     time.Time
	Until     time.Time
	Limit     int   // default 100, at most 10,000
	After     int64 // the ID after which, towards the older, the page begins
}

// AuditLog returns entries, newest first.
func (db *DB) AuditLog(ctx context.Context, q Query) ([]Entry, error) {
	var where conditions
	where.text("actor", q.Actor)
	where.object("object", q.Object)
	where.text("action", q.Action)
	where.text("execution", q.Execution)
	where.times("at", q.Since, q.Until)
	where.after(q.After)
	rows, err := db.read.QueryContext(ctx, `SELECT id, at, actor, action, object, reason, execution, detail FROM audit`+where.sql(q.Limit), where.args...)
	if err != nil {
		return nil, fmt.Errorf("records: audit log: %w", err)
	}
	defer rows.Close()
	var entries []Entry
	for rows.Next() {
		var (
			e      Entry
			at     int64
			detail string
		)
		if err := rows.Scan(&e.ID, &at, &e.Actor, &e.Action, &e.Object, &e.Reason, &e.Execution, &detail); err != nil {
			return nil, fmt.Errorf("records: audit log: %w", err)
		}
		e.At, e.Detail = moment(at), rawDetail(detail)
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

func rawDetail(detail string) json.RawMessage {
	if detail == "" {
		return nil
	}
	return json.RawMessage(detail)
}

// conditions builds a WHERE clause; values travel as arguments only.
type conditions struct {
	clauses []string
	args    []any
}

func (c *conditions) add(clause string, args ...any) {
	c.clauses, c.args = append(c.clauses, clause), append(c.args, args...)
}

func (c *conditions) text(column, value string) {
	if value != "" {
		c.add(column+" = ?", value)
	}
}

func (c *conditions) object(column, value string) {
	if strings.HasSuffix(value, "/") {
		c.add(column+" >= ? AND "+column+" < ?", value, strings.TrimSuffix(value, "/")+"0") // '0' follows '/'
		return
	}
	c.text(column, value)
}

func (c *conditions) times(column string, since, until time.Time) {
	if !since.IsZero() {
		c.add(column+" >= ?", millis(since))
	}
	if !until.IsZero() {
		c.add(column+" < ?", millis(until))
	}
}

func (c *conditions) after(id int64) {
	if id > 0 {
		c.add("id < ?", id)
	}
}

func (c *conditions) sql(limit int) string {
	var b strings.Builder
	if len(c.clauses) > 0 {
		b.WriteString(" WHERE " + strings.Join(c.clauses, " AND "))
	}
	if limit <= 0 {
		limit = 100
	}
	fmt.Fprintf(&b, " ORDER BY id DESC LIMIT %d", min(limit, 10_000))
	return b.String()
}
