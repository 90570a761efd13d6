package records

import (
	"context"
	"fmt"
	"time"
)

// LoadSample is the offered load of a service in one bucket: every request that callers wanted to make.
type LoadSample struct {
	At         time.Time     `json:"at"` // start of the bucket
	Width      time.Duration `json:"width"`
	Requests   int64         `json:"requests"` // with those that failed or were rejected
	Failures   int64         `json:"failures"`
	Rejected   int64         `json:"rejected"`
	LatencySum time.Duration `json:"latency_sum"`
	Rate       float64       `json:"rate"` // requests a second; of a current bucket, over the time that it lasts so far
	Status     Status        `json:"status"`
	Heard      bool          `json:"heard,omitempty"`   // somebody reported, be it that nothing was called
	Partial    bool          `json:"partial,omitempty"` // more than a tenth of the callers had broken off: a lower bound
}

// Load returns one sample for every bucket that begins in from..to (to excluded; from is rounded down to one), in
// order. A bucket without a report is zero if its Status is Complete, and unknown if it is Gap or Silent.
func (db *DB) Load(ctx context.Context, service string, from, to time.Time) ([]LoadSample, error) {
	starts := db.buckets(from, to)
	if len(starts) == 0 {
		return nil, nil
	}
	covered, err := db.covered(ctx, starts[0], to)
	if err != nil {
		return nil, fmt.Errorf("records: coverage: %w", err)
	}
	now := db.config.Now()
	samples := make([]LoadSample, len(starts))
	for i, start := range starts {
		samples[i] = LoadSample{At: start, Width: db.config.Bucket, Status: statusOf(covered, start, db.config.Bucket, now)}
	}
	rows, err := db.read.QueryContext(ctx, `SELECT bucket, requests, failures, rejected, latency FROM load
		WHERE service = ? AND bucket >= ? AND bucket < ?`, service, millis(starts[0]), millis(to))
	if err != nil {
		return nil, fmt.Errorf("records: load of %s: %w", service, err)
	}
	defer rows.Close()
	for rows.Next() {
		var start, requests, failures, rejected, latency int64
		if err := rows.Scan(&start, &requests, &failures, &rejected, &latency); err != nil {
			return nil, fmt.Errorf("records: load of %s: %w", service, err)
		}
		i := int((start - millis(starts[0])) / db.config.Bucket.Milliseconds())
		if i >= len(samples) || start != millis(samples[i].At) {
			continue // written under another Config.Bucket
		}
		s := &samples[i]
		s.Heard = true
		s.Requests, s.Failures, s.Rejected, s.LatencySum = requests, failures, rejected, time.Duration(latency)
		lasted := s.Width
		if s.Status == Current {
			lasted = max(now.Sub(s.At), time.Millisecond)
		}
		s.Rate = float64(requests) / lasted.Seconds()
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("records: load of %s: %w", service, err)
	}
	audiences, err := db.audiences(ctx, service, starts[0], to)
	if err != nil {
		return nil, fmt.Errorf("records: audience of %s: %w", service, err)
	}
	doubt(samples, audiences)
	return samples, nil
}

// Call is one access relation that was observed: a caller used a service.
type Call struct {
	Caller   string    `json:"caller"`
	Service  string    `json:"service"`
	Requests int64     `json:"requests"`
	Failures int64     `json:"failures"`
	Last     time.Time `json:"last"`
}

// Calls returns who called what since a day (UTC, rounded down), sorted. An empty service is every service.
func (db *DB) Calls(ctx context.Context, service string, since time.Time) ([]Call, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT caller, service, SUM(requests), SUM(failures), MAX(last_ms) FROM calls
		WHERE day >= ? AND (? = '' OR service = ?) GROUP BY caller, service ORDER BY caller, service`,
		millis(since)-millis(since)%dayMillis, service, service)
	if err != nil {
		return nil, fmt.Errorf("records: calls of %s: %w", service, err)
	}
	defer rows.Close()
	var calls []Call
	for rows.Next() {
		var (
			c    Call
			last int64
		)
		if err := rows.Scan(&c.Caller, &c.Service, &c.Requests, &c.Failures, &last); err != nil {
			return nil, fmt.Errorf("records: calls of %s: %w", service, err)
		}
		c.Last = moment(last)
		calls = append(calls, c)
	}
	return calls, rows.Err()
}
