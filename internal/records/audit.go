package records

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Entry is one line of the audit record: who did what to what, and why.
type Entry struct {
	ID        int64           `json:"id"`               // given by Audit; grows
	At        time.Time       `json:"at"`               // default: now
	Actor     string          `json:"actor"`            // who is said to ask
	Proved    string          `json:"proved,omitempty"` // who it was that said so, and by what proof; empty: this server itself
	Action    string          `json:"action"`
	Object    string          `json:"object"` // kind/name
	Reason    string          `json:"reason,omitempty"`
	Execution string          `json:"execution,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`

	// Key is the writer's own name of what happened: the same key again writes nothing. Empty: each call writes.
	Key string `json:"-"`
}

// Audit appends an entry; it is durable when it returns. Actor and Action are required.
func (db *DB) Audit(ctx context.Context, e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	return db.submit(ctx, func(tx *sql.Tx) error { return db.insert(tx, e) })
}

// AuditOf appends what happened at a source up to a cursor, and keeps the cursor, all or nothing: who was killed goes on
// from Cursor, and what it then tells a second time is written once. No entries move the cursor alone.
func (db *DB) AuditOf(ctx context.Context, source, cursor string, entries []Entry) error {
	if source == "" {
		return fmt.Errorf("%w: the source of audit entries has no name", ErrInvalid)
	}
	for _, e := range entries {
		if err := e.check(); err != nil {
			return err
		}
		if e.Key == "" {
			return fmt.Errorf("%w: audit entry %s on %q has no key; a source names what happened", ErrInvalid, e.Action, e.Object)
		}
	}
	return db.submit(ctx, func(tx *sql.Tx) error {
		for _, e := range entries {
			if err := db.insert(tx, e); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO audit_cursors (source, cursor) VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET cursor = excluded.cursor`, source, cursor)
		return err
	})
}

// Cursor is what AuditOf kept last for a source; empty if it never did.
func (db *DB) Cursor(ctx context.Context, source string) (string, error) {
	var cursor string
	err := db.read.QueryRowContext(ctx, `SELECT cursor FROM audit_cursors WHERE source = ?`, source).Scan(&cursor)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("records: cursor of %s: %w", source, err)
	}
	return cursor, nil
}

func (e Entry) check() error {
	if e.Actor == "" || e.Action == "" {
		return fmt.Errorf("%w: audit entry on %q has actor %q and action %q; name both", ErrInvalid, e.Object, e.Actor, e.Action)
	}
	_, err := validDetail(e.Detail)
	return err
}

func (db *DB) insert(tx *sql.Tx, e Entry) error {
	if e.At.IsZero() {
		e.At = db.config.Now()
	}
	_, err := tx.Exec(`INSERT INTO audit (at, actor, proved, action, object, reason, execution, detail, key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING`,
		millis(e.At), e.Actor, e.Proved, e.Action, e.Object, e.Reason, e.Execution, string(e.Detail), sql.NullString{String: e.Key, Valid: e.Key != ""})
	return err
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
	rows, err := db.read.QueryContext(ctx, `SELECT id, at, actor, proved, action, object, reason, execution, detail, key FROM audit`+where.sql(q.Limit), where.args...)
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
			key    sql.NullString
		)
		if err := rows.Scan(&e.ID, &at, &e.Actor, &e.Proved, &e.Action, &e.Object, &e.Reason, &e.Execution, &detail, &key); err != nil {
			return nil, fmt.Errorf("records: audit log: %w", err)
		}
		e.At, e.Detail, e.Key = moment(at), rawDetail(detail), key.String
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
