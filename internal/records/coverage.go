package records

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// Status tells what a bucket's numbers are worth.
type Status string

const (
	Complete Status = "complete" // a process ran throughout: what is not there did not happen
	Current  Status = "current"  // not over yet
	Gap      Status = "gap"      // no process ran for some or all of it: unknown, not zero
	Silent   Status = "silent"   // over, and nobody reported, though callers were there or had broken off: unknown, not zero
)

// Span is a stretch of time, To excluded.
type Span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// begin opens this process's session. If the last one ended so recently that no bucket could have been missed by
// more than a beat, it is still another session: what was not seen was not seen.
func (db *DB) begin(ctx context.Context) error {
	now := db.config.Now()
	result, err := db.write.ExecContext(ctx, "INSERT INTO sessions (from_ms, to_ms) VALUES (?, ?)", millis(now), millis(now))
	if err != nil {
		return err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.session, db.started = id, now
	return nil
}

// beatJob notes on disk that the process runs still.
func (db *DB) beatJob() *job {
	db.mu.Lock()
	session := db.session
	db.mu.Unlock()
	now := millis(db.config.Now())
	return newJob(func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE sessions SET to_ms = ? WHERE id = ? AND to_ms < ?", now, session, now)
		return err
	})
}

// covered lists the spans in which a process ran, merged and in order, that overlap from..to.
func (db *DB) covered(ctx context.Context, from, to time.Time) ([]Span, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT id, from_ms, to_ms FROM sessions WHERE from_ms < ? ORDER BY from_ms", millis(to))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	db.mu.Lock()
	session := db.session
	db.mu.Unlock()
	var spans []Span
	for rows.Next() {
		var id, begin, end int64
		if err := rows.Scan(&id, &begin, &end); err != nil {
			return nil, err
		}
		if id == session {
			end = max(end, millis(db.config.Now())) // it runs: it is asking
		}
		if end >= millis(from) {
			spans = append(spans, Span{moment(begin), moment(end)})
		}
	}
	spans = mergeSpans(spans)
	if n := len(spans); db.bugBlindToGaps && n > 1 {
		spans = []Span{{spans[0].From, spans[n-1].To}}
	}
	return spans, rows.Err()
}

func mergeSpans(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return a.From.Compare(b.From) })
	var out []Span
	for _, s := range spans {
		if n := len(out); n > 0 && !s.From.After(out[n-1].To) {
			if s.To.After(out[n-1].To) {
				out[n-1].To = s.To
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// statusOf judges the bucket that begins at start.
func statusOf(covered []Span, start time.Time, width time.Duration, now time.Time) Status {
	end := start.Add(width)
	judged := end
	if end.After(now) {
		judged = now
	}
	whole := false
	for _, s := range covered {
		if !s.From.After(start) && !s.To.Before(judged) {
			whole = true
			break
		}
	}
	switch {
	case !whole:
		return Gap
	case end.After(now):
		return Current
	}
	return Complete
}

// bucketOf is the start of the bucket of a moment.
func (db *DB) bucketOf(t time.Time) int64 {
	width := db.config.Bucket.Milliseconds()
	ms := millis(t)
	return ms - (ms%width+width)%width
}

// buckets lists the starts of the buckets that begin in from..to, from rounded down to one.
func (db *DB) buckets(from, to time.Time) []time.Time {
	var out []time.Time
	for t := moment(db.bucketOf(from)); t.Before(to); t = t.Add(db.config.Bucket) {
		out = append(out, t)
	}
	return out
}
