package flowbench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// Place is where stores are made: a folder, for SQLite, or a PostgreSQL server.
type Place struct {
	dir     string
	dsn     string // "": SQLite
	pool    *pgxpool.Pool
	schemas []string
}

// NewPlace makes a place: in the folder, or on the server that dsn, a postgres:// URL, names. Close it.
func NewPlace(ctx context.Context, dir, dsn string) (*Place, error) {
	p := &Place{dir: dir, dsn: dsn}
	if dsn == "" {
		return p, nil
	}
	var err error
	if p.pool, err = pgxpool.New(ctx, dsn); err == nil {
		err = p.pool.Ping(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("the PostgreSQL to measure: %w", err)
	}
	return p, nil
}

// Close removes what was made on the server.
func (p *Place) Close(ctx context.Context) error {
	if p.pool == nil {
		return nil
	}
	defer p.pool.Close()
	var faults []error
	for _, schema := range p.schemas {
		_, err := p.pool.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE")
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Store returns the name of a store that is not there yet.
func (p *Place) Store(ctx context.Context, name string) (string, error) {
	if p.dsn == "" {
		return filepath.Join(p.dir, name+".db"), nil
	}
	schema := "zhiyun_bench_" + name + "_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := p.pool.Exec(ctx, "CREATE SCHEMA "+schema); err != nil {
		return "", err
	}
	p.schemas = append(p.schemas, schema)
	u, err := url.Parse(p.dsn)
	if err != nil {
		return "", err
	}
	values := u.Query()
	values.Set("search_path", schema)
	u.RawQuery = values.Encode()
	return u.String(), nil
}

// Bare is a bare group commit at this place.
func (p *Place) Bare(ctx context.Context, inflight int, span time.Duration) (Bare, error) {
	if p.dsn == "" {
		return BareSQLite(p.dir, inflight, span)
	}
	return BarePostgres(ctx, p.pool, inflight, span)
}

// Log runs so many flows at a time, and returns how many bytes the database logged for each step, and how many of these are the events themselves.
func (p *Place) Log(ctx context.Context, inflight int, span time.Duration) (logged, events float64, err error) {
	name, err := p.Store(ctx, "log")
	if err != nil {
		return 0, 0, err
	}
	if p.dsn == "" {
		return logSQLite(ctx, name, inflight, span)
	}
	store, err := Open(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var from, bytes string
	if err := p.pool.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&from); err != nil {
		return 0, 0, err
	}
	if _, err := Run(ctx, store, inflight, span); err != nil {
		return 0, 0, err
	}
	if err := p.pool.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)::text", from).Scan(&bytes); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseFloat(bytes, 64)
	if err != nil {
		return 0, 0, err
	}
	return stored(ctx, store, n)
}

// logSQLite measures the log's file, which is not emptied meanwhile.
func logSQLite(ctx context.Context, path string, inflight int, span time.Duration) (logged, events float64, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?"+sqlitestore.Options+"&_pragma=wal_autocheckpoint(0)")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store := sqlitestore.New(db)
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, err := store.Definitions(ctx); err != nil { // makes the tables
		return 0, 0, err
	}
	before, err := os.Stat(path + "-wal")
	if err != nil {
		return 0, 0, err
	}
	if _, err := Run(ctx, store, inflight, span); err != nil {
		return 0, 0, err
	}
	after, err := os.Stat(path + "-wal")
	if err != nil {
		return 0, 0, err
	}
	return stored(ctx, store, float64(after.Size()-before.Size()))
}

// stored shares bytes out over the steps that a store holds, and counts those of the events.
func stored(ctx context.Context, store flow.Store, bytes float64) (logged, events float64, err error) {
	rows, err := store.List(ctx, flow.Filter{})
	if err != nil {
		return 0, 0, err
	}
	size := 0
	for _, row := range rows {
		records, err := store.History(ctx, row.ID, 0, 0)
		if err != nil {
			return 0, 0, err
		}
		for _, r := range records {
			size += len(r.Body)
		}
	}
	steps := float64(len(rows) * Steps)
	return bytes / steps, float64(size) / steps, nil
}

// Fdatasync is how long it takes, in the median, to append 4 KiB to a file in a folder and have the disk keep them.
func Fdatasync(dir string, rounds int, sync func(*os.File) error) (time.Duration, error) {
	file, err := os.Create(filepath.Join(dir, "fdatasync"))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	block := make([]byte, 4096)
	took := make([]time.Duration, rounds)
	for i := range took {
		began := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
		if err := sync(file); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
