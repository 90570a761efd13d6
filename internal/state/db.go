package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/backoff"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

var (
	// ErrInvalid says that a transaction is wrong in itself; nothing was written.
	ErrInvalid = errors.New("state: invalid transaction")
	// ErrResync says that a watcher asked for commits that are no longer kept: take a Snapshot, and watch from
	// its revision.
	ErrResync = errors.New("state: the commits asked for are no longer kept; take a snapshot and watch from its revision")
	// ErrStopped says that the DB's Run has ended.
	ErrStopped = errors.New("state: the replica has stopped; make a new DB and run it")
)

// Config configures a DB.
type Config struct {
	// Store holds the records; its whole key space belongs to the DB, so hand in a view (store.Prefixed).
	// Required.
	Store store.Store
	// Tables that the DB keeps; at least one. Records of other tables are left alone.
	Tables []Schema
	// History is how many commits are kept for watchers that resume; 4096 by default.
	History int
	// StageGrace is how long a generation that its stager left behind may stand before another replica finishes
	// or removes it: what was published after this long without progress, what was not after ten times as
	// long. 2 s by default.
	StageGrace time.Duration
	// Logger gets a line per change of the replica's state; nil is off.
	Logger *slog.Logger
	// Metrics gets zhiyun_state_...; nil is off.
	Metrics prometheus.Registerer
}

// DB is a replica of a store's records as typed tables, and the way to write them.
//
//	new ──Run──> loading ──listed──> following ──ctx ends──> stopped
//	                ^                    │
//	                └── compacted past ──┘   (watchers get ErrResync; snapshots go on)
//
// All methods are safe for concurrent use. Reads never block and never fail: they see the latest snapshot.
type DB struct {
	config  Config
	tables  map[string]Schema
	metrics *metrics
	syncs   *syncs

	current atomic.Pointer[view] // the latest moment of the replica

	replica *replica // used by Run's goroutine alone

	mu        sync.Mutex
	history   []Change            // guarded by mu; commits after floor that changed rows, in order
	kept      int                 // guarded by mu; row changes in history
	floor     int64               // guarded by mu; commits up to here are not in history
	changed   chan struct{}       // guarded by mu; closed and replaced whenever current changes
	status    Status              // guarded by mu
	mine      map[string]verdict  // guarded by mu; generations that this process is staging, until it has read the verdict
	own       map[string]struct{} // guarded by mu; generations that this process published, until they are closed
	running   bool                // guarded by mu
	ready     chan struct{}       // closed after the first load
	readyOnce sync.Once
	stopped   chan struct{} // closed when Run has ended
}

// New checks the configuration and returns a DB that reads nothing yet. All faults are returned at once.
func New(config Config) (*DB, error) {
	var faults []error
	if config.Store == nil {
		faults = append(faults, errors.New("state: Config.Store is nil; give a store, such as store.NewMemory() for tests"))
	}
	if len(config.Tables) == 0 {
		faults = append(faults, errors.New("state: Config.Tables is empty; give at least one table"))
	}
	if config.History == 0 {
		config.History = 4096
	}
	if config.History < 1 {
		faults = append(faults, fmt.Errorf("state: Config.History is %d; give a positive number, or 0 for 4096", config.History))
	}
	if config.StageGrace == 0 {
		config.StageGrace = 2 * time.Second
	}
	if config.StageGrace < 0 {
		faults = append(faults, fmt.Errorf("state: Config.StageGrace is %v; give a positive duration, or 0 for 2s", config.StageGrace))
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	tables := make(map[string]Schema, len(config.Tables))
	for i, t := range config.Tables {
		if t == nil {
			faults = append(faults, fmt.Errorf("state: Config.Tables[%d] is nil; give a table made by NewTable", i))
			continue
		}
		wrong := t.faults()
		if _, twice := tables[t.Name()]; twice {
			wrong = append(wrong, fmt.Errorf("state: Config.Tables has %q twice; give each table a name of its own", t.Name()))
		}
		faults = append(faults, wrong...)
		if len(wrong) == 0 {
			tables[t.Name()] = t
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	replica, err := newReplica(tables)
	if err != nil {
		return nil, err
	}
	db := &DB{
		config: config, tables: tables, syncs: newSyncs(),
		replica: replica,
		changed: make(chan struct{}), mine: make(map[string]verdict), own: make(map[string]struct{}),
		ready: make(chan struct{}), stopped: make(chan struct{}),
	}
	db.current.Store(db.replica.view())
	if db.metrics, err = newMetrics(config.Metrics, db); err != nil {
		return nil, err
	}
	return db, nil
}

// Run keeps the replica until ctx ends; it returns nil then. It is called once. A store that cannot be reached is
// tried again for as long as it takes; Status and the metrics tell.
func (db *DB) Run(ctx context.Context) error {
	db.mu.Lock()
	if db.running {
		db.mu.Unlock()
		return errors.New("state: Run was called before; run a DB once")
	}
	db.running = true
	db.mu.Unlock()
	defer close(db.stopped)

	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { db.fold(ctx) })
	defer owned.Wait()
	defer cancel()

	pause := newPause()
	for ctx.Err() == nil {
		revision, err := db.load(ctx)
		for err == nil {
			before := revision
			if revision, err = db.follow(ctx, revision); revision > before {
				pause.Reset()
			}
			if !errors.Is(err, store.ErrCompacted) {
				err = db.reconnect(ctx, err, pause) // and the watch resumes where it was
			}
		}
		if ctx.Err() == nil {
			db.connected(err)
			if !errors.Is(err, store.ErrCompacted) {
				_ = pause.Wait(ctx)
			}
		}
	}
	return nil
}

// reconnect waits until the store answers again, after err. It fails only if ctx ends.
func (db *DB) reconnect(ctx context.Context, err error, pause *backoff.Backoff) error {
	for err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		db.connected(err)
		_ = pause.Wait(ctx)
		_, _, err = db.config.Store.List(ctx, barrierKey)
	}
	db.connected(nil)
	return nil
}

// load reads the whole store and makes the replica equal to it.
func (db *DB) load(ctx context.Context) (int64, error) {
	start := time.Now()
	records, revision, err := db.config.Store.List(ctx, "")
	if err != nil {
		return 0, err
	}
	db.replica.load(records, revision)
	view := db.replica.view()
	db.mu.Lock()
	again := false
	select {
	case <-db.ready:
		again = true
		db.status.Resyncs++
	default:
	}
	db.history, db.kept, db.floor = nil, 0, revision
	db.publish(view)
	db.mu.Unlock()
	db.connected(nil)
	db.readyOnce.Do(func() { close(db.ready) })
	db.config.Logger.Info("state: read the records", "records", len(records), "revision", revision,
		"again", again, "faults", len(view.faults), "took", time.Since(start))
	return revision, nil
}

// follow applies commits as they come, and returns the last one applied.
func (db *DB) follow(ctx context.Context, after int64) (int64, error) {
	for event, err := range db.config.Store.Watch(ctx, "", after) {
		if err != nil {
			return after, err
		}
		if event.Revision <= after {
			continue // progress without a commit
		}
		start := time.Now()
		rows := db.replica.apply(event)
		after = event.Revision
		view := db.replica.view()
		db.mu.Lock()
		if len(rows) > 0 {
			db.remember(Change{Revision: after, Rows: rows})
		}
		db.publish(view)
		db.mu.Unlock()
		db.connected(nil)
		db.metrics.applied(len(rows), time.Since(start))
	}
	return after, errors.New("state: the watch ended without an error; it is made again")
}

// publish makes v what readers see. The caller is Run's goroutine and holds mu.
func (db *DB) publish(v *view) {
	for key, f := range v.faults {
		if before := db.current.Load().faults[key]; before == nil || before.Revision != f.Revision {
			db.config.Logger.Error("state: a record is not a row; it is left out until it is written again",
				"table", f.Table, "key", f.Key, "revision", f.Revision, "err", f.Err)
		}
	}
	for id, decided := range db.replica.judged() {
		if _, own := db.mine[id]; own {
			db.mine[id] = decided
		}
	}
	if before := db.current.Load().open; before != nil && (v.open == nil || v.open.id != before.id) {
		delete(db.own, before.id)
	}
	db.current.Store(v)
	db.status.Revision, db.status.Faults = v.revision, len(v.faults)
	close(db.changed)
	db.changed = make(chan struct{})
}

// connected notes whether the store answers.
func (db *DB) connected(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if up := err == nil; up != db.status.Connected {
		db.status.Connected, db.status.Since = up, time.Now()
		if up {
			db.config.Logger.Info("state: following the store", "revision", db.status.Revision)
		} else {
			db.config.Logger.Warn("state: lost the store; reads may be old", "revision", db.status.Revision, "err", err)
		}
	}
	db.status.Err = err
}

// Ready waits until the replica has been loaded once. After Run has ended it returns ErrStopped.
func (db *DB) Ready(ctx context.Context) error {
	select {
	case <-db.stopped:
		return ErrStopped
	default:
	}
	select {
	case <-db.ready:
		return nil
	case <-db.stopped:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("state: waiting for the first load: %w", errors.Join(context.Cause(ctx), db.Status().Err))
	}
}

// Snapshot returns the replica as it is. Before Ready it is empty.
func (db *DB) Snapshot() *Snapshot { return &Snapshot{db.current.Load()} }

// Status returns how the replica stands.
func (db *DB) Status() Status {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.status
}

// wake returns a channel that is closed at the next change of the replica; take it before looking.
func (db *DB) wake() <-chan struct{} {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.changed
}

// until waits for a moment of the replica of which done is true.
func (db *DB) until(ctx context.Context, done func(*view) bool) error {
	for {
		changed := db.wake()
		if done(db.current.Load()) {
			return nil
		}
		select {
		case <-changed:
		case <-db.stopped:
			return ErrStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
