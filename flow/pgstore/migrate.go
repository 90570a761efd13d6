package pgstore

import (
	"context"
	_ "embed" // of the layouts
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed schema1.sql
var schema1 string

//go:embed schema2.sql
var schema2 string

//go:embed schema3.sql
var schema3 string

//go:embed schema4.sql
var schema4 string

// versions are what brings the tables from each version to the next, the first from none. What is here is never changed: it has been run.
var versions = []string{schema1, schema2, schema3, schema4}

// lockSpace is the first key of the advisory lock on the tables' layout: "zhfl". The second names the schema. Who works with the
// tables holds it shared, who changes them holds it alone; programs of the first version hold it alone all the time.
const lockSpace = 0x7a68666c

// settleFor is how long a program waits for others to finish a migration.
const settleFor = 10 * time.Second

var errAlone = errors.New("another process keeps flows in this schema alone: it runs an older program, or this one is newer than the others and has to change the tables; end the others first, or give this one a schema of its own (search_path)")

// migrate brings the tables up to date, and takes the shared lock on their layout for as long as the connection lives.
func migrate(ctx context.Context, conn *pgx.Conn) error {
	for end := time.Now().Add(settleFor); ; {
		done, err := settle(ctx, conn)
		if done || err != nil {
			return err
		}
		if time.Now().After(end) {
			return errAlone
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), errAlone)
		}
	}
}

// settle tries once: done is false if others are in the way.
func settle(ctx context.Context, conn *pgx.Conn) (done bool, err error) {
	const key = "($1, hashtext(coalesce(current_schema(), '')))"
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock_shared"+key, lockSpace).Scan(&done); err != nil || !done {
		return false, err
	}
	version, err := layout(ctx, conn)
	switch {
	case err != nil:
		return false, err
	case version > len(versions):
		return false, fmt.Errorf("the tables are of version %d, this program knows version %d: run a newer program", version, len(versions))
	case version == len(versions):
		return true, nil
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock_shared"+key, lockSpace); err != nil {
		return false, err
	}
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock"+key, lockSpace).Scan(&alone); err != nil || !alone {
		return false, err
	}
	if err := upgrade(ctx, conn); err != nil {
		return false, err
	}
	_, err = conn.Exec(ctx, "SELECT pg_advisory_lock_shared"+key+", pg_advisory_unlock"+key, lockSpace)
	return err == nil, err
}

// layout is the version of the tables; 0 if there are none.
func layout(ctx context.Context, conn interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (version int, err error) {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass(quote_ident(current_schema()) || '.flow_schema') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	err = conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM flow_schema").Scan(&version)
	return version, err
}

// upgrade runs what is missing, all or nothing. The lock keeps others away.
func upgrade(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		version, err := layout(ctx, tx)
		if err != nil {
			return err
		}
		if version == 0 {
			if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS flow_schema (version integer NOT NULL)"); err != nil {
				return err
			}
		}
		for ; version < len(versions); version++ {
			if _, err := tx.Exec(ctx, versions[version]); err != nil {
				return fmt.Errorf("bring the tables to version %d: %w", version+1, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO flow_schema (version) VALUES ($1)", version+1); err != nil {
				return err
			}
		}
		return nil
	})
}
