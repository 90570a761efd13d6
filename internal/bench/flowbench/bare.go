package flowbench

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
)

// Bare is what a group commit does with nothing around it: a row per step and a cursor per flow, whatever arrives during one commit going into the next.
type Bare struct {
	Rate float64       // steps a second
	CPU  time.Duration // of this process, per step
}

// row is a step that was done; step -1 begins a flow.
type row struct {
	flow string
	step int
	done chan error
}

// RunBare has so many workers write 23 rows one after the other, for a while, and at least once each.
func RunBare(commit func([]row) error, inflight int, span time.Duration) (Bare, error) {
	rows := make(chan row, 1024)
	ended := make(chan struct{})
	go func() { // ends when rows is closed; waited for below
		defer close(ended)
		for first := range rows {
			batch := []row{first}
			for more := true; more && len(batch) < 512; {
				select {
				case next, open := <-rows:
					if more = open; open {
						batch = append(batch, next)
					}
				default:
					more = false
				}
			}
			err := commit(batch)
			for _, one := range batch {
				one.done <- err
			}
		}
	}()
	cpu, began := usage.Processor(), time.Now()
	counts := make([]int, inflight)
	var group errgroup.Group
	for worker := range inflight {
		group.Go(func() error {
			done := make(chan error, 1)
			for n := 0; ; n++ {
				id := strconv.Itoa(worker) + "-" + strconv.Itoa(n) + "-" + strconv.FormatInt(began.UnixNano(), 36)
				for step := -1; step < Steps; step++ {
					rows <- row{id, step, done}
					if err := <-done; err != nil {
						return err
					}
				}
				counts[worker]++
				if time.Since(began) > span {
					return nil
				}
			}
		})
	}
	err := group.Wait()
	close(rows)
	<-ended
	steps := 0
	for _, n := range counts {
		steps += n * Steps
	}
	if err != nil {
		return Bare{}, err
	}
	return Bare{Rate: float64(steps) / time.Since(began).Seconds(), CPU: (usage.Processor() - cpu) / time.Duration(steps)}, nil
}

// output is what a step is worth to keep.
const output = `{"ok":true,"ip":["10.0.0.1"],"step":17}`

// BareSQLite is RunBare on a new database in a folder.
func BareSQLite(dir string, inflight int, span time.Duration) (bare Bare, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bare.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_txlock=immediate")
	if err != nil {
		return bare, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS inst (id TEXT PRIMARY KEY, cur INT NOT NULL, at INT NOT NULL) WITHOUT ROWID;
		CREATE TABLE IF NOT EXISTS step (id TEXT NOT NULL, n INT NOT NULL, out TEXT NOT NULL, at INT NOT NULL, PRIMARY KEY (id, n)) WITHOUT ROWID`); err != nil {
		return bare, err
	}
	var made [3]*sql.Stmt
	for i, query := range []string{
		"INSERT INTO inst (id, cur, at) VALUES (?, 0, ?)", "INSERT INTO step (id, n, out, at) VALUES (?, ?, ?, ?)", "UPDATE inst SET cur = ?, at = ? WHERE id = ?",
	} {
		if made[i], err = db.Prepare(query); err != nil {
			return bare, err
		}
	}
	return RunBare(func(batch []row) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		at := time.Now().UnixNano()
		begin, step, move := tx.Stmt(made[0]), tx.Stmt(made[1]), tx.Stmt(made[2])
		for _, one := range batch {
			if one.step < 0 {
				_, err = begin.Exec(one.flow, at)
			} else if _, err = step.Exec(one.flow, one.step, output, at); err == nil {
				_, err = move.Exec(one.step+1, at, one.flow)
			}
			if err != nil {
				return err
			}
		}
		return tx.Commit()
	}, inflight, span)
}

// BarePostgres is RunBare on tables of its own, which are dropped.
func BarePostgres(ctx context.Context, pool *pgxpool.Pool, inflight int, span time.Duration) (bare Bare, err error) {
	if _, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS bare_inst (id text PRIMARY KEY, cur int NOT NULL, at timestamptz NOT NULL DEFAULT now());
		CREATE TABLE IF NOT EXISTS bare_step (id text NOT NULL, n int NOT NULL, out text NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, n))`); err != nil {
		return bare, err
	}
	defer func() {
		_, dropped := pool.Exec(ctx, "DROP TABLE bare_inst, bare_step")
		err = errors.Join(err, dropped)
	}()
	return RunBare(func(batch []row) error {
		var begun, flows, outs []string
		var steps []int32
		for _, one := range batch {
			if one.step < 0 {
				begun = append(begun, one.flow)
				continue
			}
			flows, steps, outs = append(flows, one.flow), append(steps, int32(one.step)), append(outs, output)
		}
		_, err := pool.Exec(ctx, `WITH a AS (INSERT INTO bare_inst (id, cur) SELECT unnest($1::text[]), 0),
			s AS (INSERT INTO bare_step (id, n, out) SELECT * FROM unnest($2::text[], $3::int[], $4::text[]))
			UPDATE bare_inst SET cur = u.n + 1, at = now() FROM unnest($2::text[], $3::int[]) u (id, n) WHERE bare_inst.id = u.id`, begun, flows, steps, outs)
		return err
	}, inflight, span)
}
