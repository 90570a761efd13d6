package records

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Finding is one difference between what should be and what is.
type Finding struct {
	ID         int64     `json:"id"` // given by AddFinding; grows
	Device     string    `json:"device"`
	Module     string    `json:"module,omitempty"`
	Kind       string    `json:"kind"`    // such as file
	Subject    string    `json:"subject"` // such as a path
	Expected   string    `json:"expected,omitempty"`
	Actual     string    `json:"actual,omitempty"`
	Who        string    `json:"who,omitempty"`
	Verdict    string    `json:"verdict,omitempty"`
	FirstSeen  time.Time `json:"first_seen"` // default: now
	LastSeen   time.Time `json:"last_seen"`  // set by AddFinding
	Times      int64     `json:"times"`      // it was reported
	Resolved   time.Time `json:"resolved,omitzero"`
	Resolution string    `json:"resolution,omitempty"` // such as repaired
	Resolver   string    `json:"resolver,omitempty"`
}

// AddFinding records a finding and returns its ID. One that is open already, for the same device, kind and
// subject, is brought up to date and keeps its ID. Device, Kind and Subject are required.
func (db *DB) AddFinding(ctx context.Context, f Finding) (int64, error) {
	if f.Device == "" || f.Kind == "" || f.Subject == "" {
		return 0, fmt.Errorf("%w: finding has device %q, kind %q and subject %q; give all three", ErrInvalid, f.Device, f.Kind, f.Subject)
	}
	var id int64
	err := db.submit(ctx, func(tx *sql.Tx) error {
		now := db.config.Now()
		if f.FirstSeen.IsZero() {
			f.FirstSeen = now
		}
		return tx.QueryRow(`INSERT INTO findings (device, module, kind, subject, expected, actual, who, verdict, first_seen, last_seen, times)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
			ON CONFLICT (device, kind, subject) WHERE resolved IS NULL DO UPDATE SET module = excluded.module, expected = excluded.expected,
				actual = excluded.actual, who = excluded.who, verdict = excluded.verdict, last_seen = excluded.last_seen, times = times + 1
			RETURNING id`,
			f.Device, f.Module, f.Kind, f.Subject, f.Expected, f.Actual, f.Who, f.Verdict, millis(f.FirstSeen), millis(now)).Scan(&id)
	})
	return id, err
}

// ResolveFinding ends a finding: how (such as repaired, ignored, gone) and by whom. One that has ended keeps its
// first end. ErrNotFound says that there is none with this ID.
func (db *DB) ResolveFinding(ctx context.Context, id int64, resolution, resolver string) error {
	return db.submit(ctx, func(tx *sql.Tx) error {
		result, err := tx.Exec(`UPDATE findings SET resolved = COALESCE(resolved, ?), resolution = CASE WHEN resolved IS NULL THEN ? ELSE resolution END,
			resolver = CASE WHEN resolved IS NULL THEN ? ELSE resolver END WHERE id = ?`, millis(db.config.Now()), resolution, resolver, id)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: finding %d", ErrNotFound, id)
		}
		return err
	})
}

// FindingQuery chooses findings, newest first. Every field that is not zero must match.
type FindingQuery struct {
	Device, Module, Kind, Subject string
	Open                          bool // only those not resolved
	Since, Until                  time.Time
	Limit                         int   // default 100, at most 10,000
	After                         int64 // the ID after which, towards the older, the page begins
}

// Findings returns findings, newest first.
func (db *DB) Findings(ctx context.Context, q FindingQuery) ([]Finding, error) {
	var where conditions
	where.text("device", q.Device)
	where.text("module", q.Module)
	where.text("kind", q.Kind)
	where.text("subject", q.Subject)
	where.times("first_seen", q.Since, q.Until)
	where.after(q.After)
	if q.Open {
		where.add("resolved IS NULL")
	}
	rows, err := db.read.QueryContext(ctx, `SELECT id, device, module, kind, subject, expected, actual, who, verdict, first_seen, last_seen, times,
		COALESCE(resolved, 0), resolution, resolver FROM findings`+where.sql(q.Limit), where.args...)
	if err != nil {
		return nil, fmt.Errorf("records: findings: %w", err)
	}
	defer rows.Close()
	var findings []Finding
	for rows.Next() {
		var (
			f                     Finding
			first, last, resolved int64
		)
		if err := rows.Scan(&f.ID, &f.Device, &f.Module, &f.Kind, &f.Subject, &f.Expected, &f.Actual, &f.Who, &f.Verdict, &first, &last, &f.Times,
			&resolved, &f.Resolution, &f.Resolver); err != nil {
			return nil, fmt.Errorf("records: findings: %w", err)
		}
		f.FirstSeen, f.LastSeen = moment(first), moment(last)
		if resolved != 0 {
			f.Resolved = moment(resolved)
		}
		findings = append(findings, f)
	}
	return findings, rows.Err()
}
