package cmdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Config configures a DB. Store is required; every other field may be zero.
type Config struct {
	// Store keeps the objects and their history, under keys of its own.
	Store Store
	// ExpireEvery is how often expired holds are looked for. Default 1s.
	ExpireEvery time.Duration
	// KeepHistory is how many changes of each object are kept; older ones are dropped as new ones come.
	// Default 1000.
	KeepHistory int
	// KeepAcquisitions is how long an acquisition is remembered after its devices are gone from it, so that a
	// late duplicate of its request is refused. Default 24h.
	KeepAcquisitions time.Duration
	// Logger gets one line per change of state. Default none.
	Logger *slog.Logger
	// Metrics gets zhiyun_cmdb_changes_total, zhiyun_cmdb_conflicts_total and zhiyun_cmdb_devices. Default none.
	Metrics prometheus.Registerer
}

// DB is what should be: all objects in memory, kept in a Store. Its methods are safe for concurrent use.
//
//	New -> Run (loads, then follows the store until ctx ends) -> Ready: reads and writes answer
//
// Reads before the first load find nothing; call Ready first. Writes wait for it.
type DB struct {
	store       Store
	replica     *replica
	logger      *slog.Logger
	metrics     metrics
	keep        int64
	expireEvery time.Duration
	remember    time.Duration
	ready       chan struct{} // closed after the first load
	readyOnce   sync.Once
	bug         string // planted by a test
}

// New checks config and returns a DB that has not read anything yet: call Run.
func New(config Config) (*DB, error) {
	var faults []error
	if config.Store == nil {
		faults = append(faults, errors.New("cmdb: Config.Store is nil; give memstore.New(), etcdstore.New(...) or your own"))
	}
	if config.ExpireEvery < 0 {
		faults = append(faults, fmt.Errorf("cmdb: Config.ExpireEvery is %s; give a duration above 0, or leave it out for 1s", config.ExpireEvery))
	}
	if config.KeepHistory < 0 {
		faults = append(faults, fmt.Errorf("cmdb: Config.KeepHistory is %d; give a number above 0, or leave it out for 1000", config.KeepHistory))
	}
	if config.KeepAcquisitions < 0 {
		faults = append(faults, fmt.Errorf("cmdb: Config.KeepAcquisitions is %s; give a duration above 0, or leave it out for 24h", config.KeepAcquisitions))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	defaultTo(&config.ExpireEvery, time.Second)
	defaultTo(&config.KeepHistory, 1000)
	defaultTo(&config.KeepAcquisitions, 24*time.Hour)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{
		store: config.Store, replica: newReplica(), logger: config.Logger,
		keep: int64(config.KeepHistory), expireEvery: config.ExpireEvery, remember: config.KeepAcquisitions,
		ready: make(chan struct{}),
	}
	var err error
	db.metrics, err = newMetrics(config.Metrics, db)
	return db, err
}

// Run loads the store, follows it, and returns expired holds, until ctx ends; then it returns nil. An error of
// the store is retried. It is called once.
func (db *DB) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { db.expire(ctx) })
	defer wait.Wait()
	for ctx.Err() == nil {
		err := db.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		db.logger.Warn("cmdb: following the store failed; reading it again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// follow lists and watches until the watch fails.
func (db *DB) follow(ctx context.Context) error {
	records, revision, err := db.list(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := db.replica.load(records, revision); err != nil {
		return err
	}
	db.readyOnce.Do(func() { close(db.ready) })
	for event, err := range db.store.Watch(ctx, "", revision) {
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if err := db.replica.apply(event); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (db *DB) list(ctx context.Context) ([]store.Record, int64, error) {
	return db.store.List(ctx, "")
}

// Ready waits until the first load is done. Run must be running.
func (db *DB) Ready(ctx context.Context) error {
	select {
	case <-db.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cmdb: the store is not loaded yet; is Run running? %w", ctx.Err())
	}
}
