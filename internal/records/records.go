package records

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Config configures a DB; every field may be zero.
type Config struct {
	Bucket       time.Duration // width of outcome buckets; default 10s; whole milliseconds
	KeepOutcomes time.Duration // outcomes by instance; default 48h
	KeepLoad     time.Duration // load by service, and calls; default 35 days
	KeepAudit    time.Duration // audit entries and change records; default 400 days
	KeepFindings time.Duration // after they were resolved; default 90 days
	Beat         time.Duration // how often the process notes that it runs; default a quarter of Bucket
	Now          func() time.Time
	Logger       *slog.Logger
	Metrics      prometheus.Registerer // zhiyun_records_commits_total, _writes_total, _commit_seconds
}

var (
	// ErrClosed says that the DB was closed.
	ErrClosed = errors.New("records: closed; open it again")
	// ErrInvalid says that a record lacks something; nothing was written.
	ErrInvalid = errors.New("records: invalid record")
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("records: not found")
)

// DB is one file of records. Its methods are safe for concurrent use.
type DB struct {
	config  Config
	logger  *slog.Logger
	write   *sql.DB // one connection, used by the committer alone
	read    *sql.DB
	jobs    chan *job
	closed  chan struct{}
	once    sync.Once
	metrics metrics

	open *openBuckets // touched by the committer alone

	bugBlindToGaps bool // planted by a test: time between two runs counts as seen

	mu       sync.Mutex
	session  int64     // guarded by mu; row id of this process's run, 0 before Run
	started  time.Time // guarded by mu; of the session
	sessions bool      // guarded by mu; Run has been called
}

// Open opens or creates the file at path.
func Open(path string, config Config) (*DB, error) {
	var faults []error
	positive := func(name string, value *time.Duration, standard time.Duration) {
		if *value < 0 {
			faults = append(faults, fmt.Errorf("records: Config.%s is %s; give a duration above 0, or leave it out for %s", name, *value, standard))
		}
		if *value == 0 {
			*value = standard
		}
	}
	positive("Bucket", &config.Bucket, 10*time.Second)
	positive("KeepOutcomes", &config.KeepOutcomes, 48*time.Hour)
	positive("KeepLoad", &config.KeepLoad, 35*24*time.Hour)
	positive("KeepAudit", &config.KeepAudit, 400*24*time.Hour)
	positive("KeepFindings", &config.KeepFindings, 90*24*time.Hour)
	positive("Beat", &config.Beat, config.Bucket/4)
	if config.Bucket%time.Millisecond != 0 {
		faults = append(faults, fmt.Errorf("records: Config.Bucket is %s; give whole milliseconds", config.Bucket))
	}
	if path == "" {
		faults = append(faults, errors.New("records: path is empty; name the file"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{config: config, logger: config.Logger, jobs: make(chan *job, 1024), closed: make(chan struct{}), open: newOpenBuckets()}
	var err error
	if db.metrics, err = newMetrics(config.Metrics); err != nil {
		return nil, err
	}
	if err := db.connect(path); err != nil {
		return nil, fmt.Errorf("records: open %s: %w", path, err)
	}
	return db, nil
}

func (db *DB) connect(path string) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := private(absolute); err != nil {
		return err
	}
	dsn := func(extra ...string) string {
		values := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, extra...)}
		values.Set("_txlock", "immediate")
		return (&url.URL{Scheme: "file", Path: absolute, RawQuery: values.Encode()}).String()
	}
	if db.write, err = sql.Open("sqlite", dsn("journal_mode(WAL)", "synchronous(FULL)")); err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	if err = migrate(db.write); err == nil {
		db.read, err = sql.Open("sqlite", dsn("query_only(1)"))
	}
	if err == nil {
		db.read.SetMaxOpenConns(4)
		err = db.read.Ping()
	}
	if err != nil {
		return errors.Join(err, db.write.Close())
	}
	return nil
}

// private makes the file if it is not there, and has it, and what SQLite lays beside it, be its owner's alone: who did what and why is in it. What SQLite
// makes later takes the file's mode.
func private(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(file.Chmod(0o600), file.Close())
	for _, beside := range []string{"-wal", "-shm"} {
		if there := os.Chmod(path+beside, 0o600); !errors.Is(there, os.ErrNotExist) {
			err = errors.Join(err, there)
		}
	}
	return err
}

// Run commits what is written, notes that the process runs, and drops what is past its time, until ctx ends. It
// then commits what had been accepted and returns nil. It is called once.
func (db *DB) Run(ctx context.Context) error {
	db.mu.Lock()
	if db.sessions {
		db.mu.Unlock()
		return errors.New("records: Run was called before; open another DB")
	}
	db.sessions = true
	db.mu.Unlock()
	if err := db.begin(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("records: begin a session: %w", err)
	}
	beat := time.NewTicker(db.config.Beat)
	defer beat.Stop()
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			db.drain()
			return nil
		case <-db.closed:
			return nil
		case j := <-db.jobs:
			db.commit(db.gather(j))
		case <-beat.C:
			db.commit([]*job{db.beatJob()})
		case <-sweep.C:
			db.commit([]*job{db.sweepJob()})
		}
	}
}

// Close closes the file. Writes and reads after it fail. It is idempotent.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.closed)
		err = errors.Join(db.read.Close(), db.write.Close())
	})
	return err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
