package records

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// OutcomeDelta is what one caller saw of one instance since its last report.
type OutcomeDelta struct {
	Caller     string
	Service    string
	Addr       string
	Device     string
	Requests   int64 // all, with those that failed or were rejected
	Failures   int64
	Rejected   int64 // turned away before they were sent
	LatencySum time.Duration
	Histogram  []int64 // counts by the reporter's fixed bounds; all reporters use the same
	Reports    int64   // how many reports are in it; 0 is 1
}

// OutcomeBucket is what all callers together saw of one instance in one bucket.
type OutcomeBucket struct {
	Start      time.Time     `json:"start"`
	Service    string        `json:"service"`
	Addr       string        `json:"addr"`
	Device     string        `json:"device,omitempty"`
	Requests   int64         `json:"requests"`
	Failures   int64         `json:"failures"`
	Rejected   int64         `json:"rejected"`
	LatencySum time.Duration `json:"latency_sum"`
	Histogram  []int64       `json:"histogram,omitempty"`
	Reports    int64         `json:"reports"`
}

// Window is the outcomes of a service over a time.
type Window struct {
	From     time.Time       `json:"from"` // rounded down to a bucket
	To       time.Time       `json:"to"`
	Buckets  []OutcomeBucket `json:"buckets"` // by start, then address; only those with a report
	Gaps     []Span          `json:"gaps,omitempty"`
	Complete bool            `json:"complete"` // no gap, and every bucket is over
}

// AddOutcomes adds to the bucket of now. It is durable when it returns.
func (db *DB) AddOutcomes(ctx context.Context, deltas []OutcomeDelta) error {
	return db.AddReport(ctx, "", 0, deltas)
}

// AddReport is AddOutcomes for a reporter that may send a report again: a seq that is not greater than the
// reporter's last one adds nothing and is no error. An empty reporter is not remembered.
func (db *DB) AddReport(ctx context.Context, reporter string, seq int64, deltas []OutcomeDelta) error {
	for i, d := range deltas {
		if d.Service == "" || d.Addr == "" || d.Requests < 0 || d.Failures < 0 || d.Rejected < 0 || d.Reports < 0 {
			return fmt.Errorf("%w: outcome %d of service %q, address %q has %d requests, %d failures, %d rejected; name service and address, and give no negative count",
				ErrInvalid, i, d.Service, d.Addr, d.Requests, d.Failures, d.Rejected)
		}
	}
	return db.submit(ctx, func(tx *sql.Tx) error {
		now := db.config.Now()
		if reporter != "" {
			result, err := tx.Exec(`INSERT INTO reporters (reporter, seq, at) VALUES (?, ?, ?)
				ON CONFLICT (reporter) DO UPDATE SET seq = excluded.seq, at = excluded.at WHERE seq < excluded.seq`, reporter, seq, millis(now))
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n == 0 {
				return err
			}
		}
		return db.open.add(tx, db.bucketOf(now), millis(now), deltas)
	})
}

type bucketKey struct{ service, addr string }

// openBuckets are the running sums of the bucket that is open, so that a report is one write per instance and no read.
type openBuckets struct {
	bucket    int64
	instances map[bucketKey]*OutcomeBucket
	services  map[string]*OutcomeBucket
}

func newOpenBuckets() *openBuckets {
	o := &openBuckets{}
	o.clear()
	return o
}

func (o *openBuckets) clear() {
	o.instances, o.services = map[bucketKey]*OutcomeBucket{}, map[string]*OutcomeBucket{}
}

func (o *openBuckets) add(tx *sql.Tx, bucket, now int64, deltas []OutcomeDelta) error {
	if bucket != o.bucket {
		o.clear()
		o.bucket = bucket
	}
	for _, d := range deltas {
		key := bucketKey{d.Service, d.Addr}
		instance, err := o.instance(tx, key)
		if err != nil {
			return err
		}
		service, err := o.service(tx, d.Service)
		if err != nil {
			return err
		}
		instance.Device = d.Device
		for _, sum := range []*OutcomeBucket{instance, service} {
			sum.Requests += d.Requests
			sum.Failures += d.Failures
			sum.Rejected += d.Rejected
			sum.LatencySum += d.LatencySum
			if d.Requests > 0 {
				sum.Reports += max(d.Reports, 1)
			}
		}
		for len(instance.Histogram) < len(d.Histogram) {
			instance.Histogram = append(instance.Histogram, 0)
		}
		for i, n := range d.Histogram {
			instance.Histogram[i] += n
		}
		if err := o.save(tx, instance, service, d, now); err != nil {
			return err
		}
	}
	return nil
}

func (o *openBuckets) save(tx *sql.Tx, i, s *OutcomeBucket, d OutcomeDelta, now int64) error {
	_, err := tx.Exec(`INSERT OR REPLACE INTO outcomes (service, bucket, addr, device, requests, failures, rejected, latency, reports, histogram)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, i.Service, o.bucket, i.Addr, i.Device, i.Requests, i.Failures, i.Rejected, int64(i.LatencySum), i.Reports, packCounts(i.Histogram))
	if err != nil {
		return err
	}
	if _, err = tx.Exec(`INSERT OR REPLACE INTO load (service, bucket, requests, failures, rejected, latency) VALUES (?, ?, ?, ?, ?, ?)`,
		s.Service, o.bucket, s.Requests, s.Failures, s.Rejected, int64(s.LatencySum)); err != nil || d.Caller == "" {
		return err
	}
	_, err = tx.Exec(`INSERT INTO calls (caller, service, day, requests, failures, last_ms) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (caller, service, day) DO UPDATE SET requests = requests + excluded.requests, failures = failures + excluded.failures, last_ms = excluded.last_ms`,
		d.Caller, d.Service, now-now%dayMillis, d.Requests, d.Failures, now)
	return err
}

const dayMillis = 24 * 60 * 60 * 1000

// instance returns the running sum of an instance; after a restart it begins with what the file holds.
func (o *openBuckets) instance(tx *sql.Tx, key bucketKey) (*OutcomeBucket, error) {
	if have, ok := o.instances[key]; ok {
		return have, nil
	}
	b := &OutcomeBucket{Service: key.service, Addr: key.addr}
	var counts []byte
	err := tx.QueryRow(`SELECT device, requests, failures, rejected, latency, reports, histogram FROM outcomes WHERE service = ? AND bucket = ? AND addr = ?`,
		key.service, o.bucket, key.addr).Scan(&b.Device, &b.Requests, &b.Failures, &b.Rejected, (*int64)(&b.LatencySum), &b.Reports, &counts)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	b.Histogram = unpackCounts(counts)
	o.instances[key] = b
	return b, nil
}

func (o *openBuckets) service(tx *sql.Tx, name string) (*OutcomeBucket, error) {
	if have, ok := o.services[name]; ok {
		return have, nil
	}
	b := &OutcomeBucket{Service: name}
	err := tx.QueryRow(`SELECT requests, failures, rejected, latency FROM load WHERE service = ? AND bucket = ?`,
		name, o.bucket).Scan(&b.Requests, &b.Failures, &b.Rejected, (*int64)(&b.LatencySum))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	o.services[name] = b
	return b, nil
}

// Outcomes returns what was reported of a service in the buckets that begin in from..to (to excluded; from is
// rounded down to a bucket).
func (db *DB) Outcomes(ctx context.Context, service string, from, to time.Time) (Window, error) {
	w := Window{From: moment(db.bucketOf(from)), To: to}
	rows, err := db.read.QueryContext(ctx, `SELECT bucket, addr, device, requests, failures, rejected, latency, reports, histogram FROM outcomes
		WHERE service = ? AND bucket >= ? AND bucket < ? AND requests > 0 ORDER BY bucket, addr`, service, millis(w.From), millis(to))
	if err != nil {
		return w, fmt.Errorf("records: outcomes of %s: %w", service, err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			start  int64
			counts []byte
			b      = OutcomeBucket{Service: service}
		)
		if err := rows.Scan(&start, &b.Addr, &b.Device, &b.Requests, &b.Failures, &b.Rejected, (*int64)(&b.LatencySum), &b.Reports, &counts); err != nil {
			return w, fmt.Errorf("records: outcomes of %s: %w", service, err)
		}
		b.Start, b.Histogram = moment(start), unpackCounts(counts)
		w.Buckets = append(w.Buckets, b)
	}
	if err := rows.Err(); err != nil {
		return w, fmt.Errorf("records: outcomes of %s: %w", service, err)
	}
	covered, err := db.covered(ctx, w.From, to)
	if err != nil {
		return w, fmt.Errorf("records: coverage: %w", err)
	}
	now := db.config.Now()
	w.Complete = true
	for _, start := range db.buckets(from, to) {
		switch statusOf(covered, start, db.config.Bucket, now) {
		case Gap:
			w.Gaps = append(w.Gaps, Span{start, start.Add(db.config.Bucket)})
			w.Complete = false
		case Current:
			w.Complete = false
		}
	}
	w.Gaps = mergeSpans(w.Gaps)
	return w, nil
}

func packCounts(counts []int64) []byte {
	out := make([]byte, 0, len(counts)*2)
	for _, n := range counts {
		out = binary.AppendVarint(out, n)
	}
	return out
}

func unpackCounts(data []byte) []int64 {
	var out []int64
	for len(data) > 0 {
		n, size := binary.Varint(data)
		if size <= 0 {
			return out
		}
		out, data = append(out, n), data[size:]
	}
	return out
}
