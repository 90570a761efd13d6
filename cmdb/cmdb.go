package cmdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zhiyun-ops/zhiyun/internal/state"
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
	state       *state.DB
	history     Store
	logger      *slog.Logger
	metrics     metrics
	keep        int64
	expireEvery time.Duration
	remember    time.Duration
	hooks       hooks
}

// hooks are what tests replace.
type hooks struct {
	now     func() time.Time
	between func() // if not nil, runs after a change was decided and before it is written
	blind   bool   // a planted bug: what was read is not looked at again when the change is written
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
		history: store.Prefixed(config.Store, "history/"), logger: config.Logger,
		keep: int64(config.KeepHistory), expireEvery: config.ExpireEvery, remember: config.KeepAcquisitions,
		hooks: hooks{now: time.Now},
	}
	var err error
	if db.metrics, err = newMetrics(config.Metrics, db); err != nil {
		return nil, fmt.Errorf("cmdb: Config.Metrics: %w", err)
	}
	db.state, err = state.New(state.Config{
		Store: store.Prefixed(config.Store, "live/"), Tables: schemas(), Logger: config.Logger, Metrics: db.metrics.replica,
	})
	if err != nil {
		return nil, fmt.Errorf("cmdb: %w", err)
	}
	return db, nil
}

func schemas() []state.Schema {
	out := make([]state.Schema, len(kindTable))
	for i, row := range kindTable {
		out[i] = row.table.schema()
	}
	return out
}

// Run loads the store, follows it, and returns expired holds, until ctx ends; then it returns nil. It is called
// once. A store that cannot be reached is tried again for as long as it takes.
func (db *DB) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait.Go(func() { db.expire(ctx) })
	if err := db.state.Run(ctx); err != nil {
		return fmt.Errorf("cmdb: %w", err)
	}
	return nil
}

// Ready waits until the first load is done. Run must be running.
func (db *DB) Ready(ctx context.Context) error {
	if err := db.state.Ready(ctx); err != nil {
		return fmt.Errorf("cmdb: not loaded; is Run running? %w", err)
	}
	return nil
}
