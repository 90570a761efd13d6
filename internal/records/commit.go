package records

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// job is one write that waits for the committer.
type job struct {
	write func(*sql.Tx) error
	err   error
	done  chan struct{}
}

func newJob(write func(*sql.Tx) error) *job { return &job{write: write, done: make(chan struct{})} }

// maxBatch bounds one transaction.
const maxBatch = 512

// submit hands a write to the committer and waits until it is durable.
func (db *DB) submit(ctx context.Context, write func(*sql.Tx) error) error {
	j := newJob(write)
	select {
	case <-db.closed:
		return ErrClosed
	default:
	}
	select {
	case db.jobs <- j:
	case <-ctx.Done():
		return fmt.Errorf("records: not written: %w", ctx.Err())
	case <-db.closed:
		return ErrClosed
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return fmt.Errorf("records: given up while waiting, it may be written: %w", ctx.Err())
	case <-db.closed:
		return ErrClosed
	}
}

// gather takes what else waits.
func (db *DB) gather(first *job) []*job {
	batch := []*job{first}
	for len(batch) < maxBatch {
		select {
		case j := <-db.jobs:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// drain commits what was accepted before the end.
func (db *DB) drain() {
	for {
		select {
		case j := <-db.jobs:
			db.commit(db.gather(j))
		default:
			db.commit([]*job{db.beatJob()})
			return
		}
	}
}

// commit runs a batch in one transaction. A write that fails is undone alone; a commit that fails fails all.
func (db *DB) commit(batch []*job) {
	began := time.Now()
	err := db.transact(batch)
	if err != nil {
		db.open.clear() // what it holds may not be what the file holds
		db.logger.Warn("records: a commit failed; its writers were told", "writes", len(batch), "error", err)
	}
	for _, j := range batch {
		if err != nil && j.err == nil {
			j.err = fmt.Errorf("records: commit: %w", err)
		}
		close(j.done)
	}
	db.metrics.seconds.Observe(time.Since(began).Seconds())
	db.metrics.commits.Inc()
	db.metrics.writes.Add(float64(len(batch)))
}

func (db *DB) transact(batch []*job) error {
	// Not the writers' contexts: one of them ending must not undo the others.
	tx, err := db.write.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says ErrTxDone
	for _, j := range batch {
		if len(batch) == 1 {
			if j.err = j.write(tx); j.err != nil {
				db.open.clear()
				return nil // the deferred rollback undoes it
			}
			continue
		}
		if _, err := tx.Exec("SAVEPOINT job"); err != nil {
			return err
		}
		if j.err = j.write(tx); j.err != nil {
			db.open.clear()
			if _, err := tx.Exec("ROLLBACK TO job"); err != nil {
				return err
			}
		}
		if _, err := tx.Exec("RELEASE job"); err != nil {
			return err
		}
	}
	return tx.Commit()
}

type metrics struct {
	commits, writes prometheus.Counter
	seconds         prometheus.Histogram
}

func newMetrics(to prometheus.Registerer) (metrics, error) {
	m := metrics{
		commits: prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_records_commits_total", Help: "Transactions committed."}),
		writes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_records_writes_total", Help: "Writes in them."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "zhiyun_records_commit_seconds", Help: "Time of a transaction with its fsync.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	if to == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.commits, m.writes, m.seconds} {
		if err := to.Register(c); err != nil {
			return m, fmt.Errorf("records: register metrics: %w", err)
		}
	}
	return m, nil
}
