package records

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// Change is a change record (变更日志): what was changed in the service, for those who ask "what happened then".
type Change struct {
	ID        int64           `json:"id"`            // given by AddChange; grows
	Key       string          `json:"key,omitempty"` // the same key again writes nothing
	At        time.Time       `json:"at"`            // default: now
	Actor     string          `json:"actor"`
	Module    string          `json:"module,omitempty"`
	Device    string          `json:"device,omitempty"`
	Kind      string          `json:"kind,omitempty"` // such as expansion
	Summary   string          `json:"summary"`
	Reason    string          `json:"reason,omitempty"`
	Execution string          `json:"execution,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

// AddChange appends a change record and returns its ID; under a Key that was used before, the ID of the record
// that is there. Actor and Summary are required.
func (db *DB) AddChange(ctx context.Context, c Change) (int64, error) {
	if c.Actor == "" || c.Summary == "" {
		return 0, fmt.Errorf("%w: change record has actor %q and summary %q; give both", ErrInvalid, c.Actor, c.Summary)
	}
	detail, err := validDetail(c.Detail)
	if err != nil {
		return 0, err
	}
	var id int64
	err = db.submit(ctx, func(tx *sql.Tx) error {
		if c.At.IsZero() {
			c.At = db.config.Now()
		}
		var key any
		if c.Key != "" {
			key = c.Key
		}
		if _, err := tx.Exec(`INSERT INTO changes (key, at, actor, module, device, kind, summary, reason, execution, detail)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`,
			key, millis(c.At), c.Actor, c.Module, c.Device, c.Kind, c.Summary, c.Reason, c.Execution, detail); err != nil {
			return err
		}
		if c.Key == "" {
			return tx.QueryRow("SELECT last_insert_rowid()").Scan(&id)
		}
		return tx.QueryRow("SELECT id FROM changes WHERE key = ?", c.Key).Scan(&id)
	})
	return id, err
}

// RemoveChange drops the record of a key, for a step that is undone. It tells whether there was one.
func (db *DB) RemoveChange(ctx context.Context, key string) (bool, error) {
	var removed bool
	err := db.submit(ctx, func(tx *sql.Tx) error {
		result, err := tx.Exec("DELETE FROM changes WHERE key = ?", key)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		removed = n > 0
		return err
	})
	return removed, err
}

// ChangeQuery chooses change records, newest first. Every field that is not zero must match.
type ChangeQuery struct {
	Actor, Module, Device, Kind, Execution string
	Since, Until                           time.Time
	Limit                                  int   // default 100, at most 10,000
	After                                  int64 // the ID after which, towards the older, the page begins
}

// Changes returns change records, newest first.
func (db *DB) Changes(ctx context.Context, q ChangeQuery) ([]Change, error) {
	var where conditions
	where.text("actor", q.Actor)
	where.text("module", q.Module)
	where.text("device", q.Device)
	where.text("kind", q.Kind)
	where.text("execution", q.Execution)
	where.times("at", q.Since, q.Until)
	where.after(q.After)
	rows, err := db.read.QueryContext(ctx, `SELECT id, COALESCE(key, ''), at, actor, module, device, kind, summary, reason, execution, detail FROM changes`+where.sql(q.Limit), where.args...)
	if err != nil {
		return nil, fmt.Errorf("records: changes: %w", err)
	}
	defer rows.Close()
	var changes []Change
	for rows.Next() {
		var (
			c      Change
			at     int64
			detail string
		)
		if err := rows.Scan(&c.ID, &c.Key, &at, &c.Actor, &c.Module, &c.Device, &c.Kind, &c.Summary, &c.Reason, &c.Execution, &detail); err != nil {
			return nil, fmt.Errorf("records: changes: %w", err)
		}
		c.At, c.Detail = moment(at), rawDetail(detail)
		changes = append(changes, c)
	}
	return changes, rows.Err()
}
