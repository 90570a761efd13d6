package records

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Audience is who calls a service, as the name service knows it: it tells a service that nobody calls from one whose
// callers are not heard.
type Audience struct {
	Service  string
	Watching int // callers that are connected
	Lost     int // callers that broke off and have not come back
}

// AddAudience notes that from now on services have these audiences. Write what changed alone: an audience holds until the
// next is noted, over restarts too.
func (db *DB) AddAudience(ctx context.Context, audiences []Audience) error {
	for i, a := range audiences {
		if a.Service == "" || a.Watching < 0 || a.Lost < 0 {
			return fmt.Errorf("%w: audience %d of service %q has %d watching, %d lost; name the service, and give no negative count", ErrInvalid, i, a.Service, a.Watching, a.Lost)
		}
	}
	return db.submit(ctx, func(tx *sql.Tx) error {
		now := millis(db.config.Now())
		for _, a := range audiences {
			if _, err := tx.Exec("INSERT OR REPLACE INTO audience (service, at, watching, lost) VALUES (?, ?, ?, ?)", a.Service, now, a.Watching, a.Lost); err != nil {
				return err
			}
		}
		return nil
	})
}

// audienceAt is the audience of a service from a moment on.
type audienceAt struct {
	at             int64
	watching, lost int
}

// audiences returns what held at from and what was noted until to, in order.
func (db *DB) audiences(ctx context.Context, service string, from, to time.Time) ([]audienceAt, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT at, watching, lost FROM audience WHERE service = ? AND at < ?
		AND at >= IFNULL((SELECT MAX(at) FROM audience WHERE service = ? AND at <= ?), 0) ORDER BY at`, service, millis(to), service, millis(from))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []audienceAt
	for rows.Next() {
		var a audienceAt
		if err := rows.Scan(&a.at, &a.watching, &a.lost); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// lostShare is the share of a service's callers that may be missing from a bucket before its numbers are a lower bound.
const lostShare = 0.1

// doubt judges samples, in order, by the audiences of the time: a bucket that is over and in which nobody was heard is unknown if
// anybody was there to report or had broken off, and one that lacks the reports of many is a lower bound.
func doubt(samples []LoadSample, audiences []audienceAt) {
	next := 0 // audiences before it began before the bucket; the last of them held when it began
	for i := range samples {
		s := &samples[i]
		start, end := millis(s.At), millis(s.At.Add(s.Width))
		for next < len(audiences) && audiences[next].at <= start {
			next++
		}
		for j := max(next-1, 0); j < len(audiences) && audiences[j].at < end; j++ {
			a := audiences[j]
			switch {
			case s.Status == Complete && !s.Heard && a.watching+a.lost > 0:
				s.Status = Silent
			case s.Requests > 0 && float64(a.lost) > lostShare*float64(a.watching+a.lost):
				s.Partial = true
			}
		}
	}
}
