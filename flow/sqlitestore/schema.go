package sqlitestore

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
)

//go:embed schema.sql
var schema string

//go:embed schema2.sql
var schema2 string

//go:embed schema3.sql
var schema3 string

//go:embed schema4.sql
var schema4 string

//go:embed schema6.sql
var schema6 string

// upgrades bring tables from version 1 to 2, from 2 to 3, and so on. There is no way back.
var upgrades = []string{schema2, schema3, schema4, schemaLocks, schema6}

// Versions of the tables: that which schema makes, and that which this program knows.
const (
	firstVersion  = 2
	schemaVersion = 6
)

// errOutdated says that this program is older than the tables.
var errOutdated = errors.New("run a newer program")

// known refuses tables of a version that this program does not know. They may become so while it runs: a newer program that works on the same database of
// an embedder's brings them up to date when it starts.
func known(version int) error {
	if version > schemaVersion {
		return fmt.Errorf("the tables are of version %d, this program knows versions up to %d: %w", version, schemaVersion, errOutdated)
	}
	return nil
}

// migrate brings the tables up to date, under the database's write lock: who comes second finds them so.
func migrate(ctx context.Context, conn *sql.Conn) (err error) {
	var found int // looked at without the lock, which a transaction of the embedder's may hold
	if conn.QueryRowContext(ctx, "SELECT max(version) FROM flow_schema").Scan(&found) == nil && found == schemaVersion {
		return nil
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK") // the first error is the one to tell
		}
	}()
	if _, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS flow_schema (version INTEGER NOT NULL)"); err != nil {
		return err
	}
	var version int
	if err := conn.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM flow_schema").Scan(&version); err != nil {
		return err
	}
	if err := known(version); err != nil {
		return err
	}
	var steps []string
	from := version
	if version == 0 {
		steps, from = append(steps, schema), firstVersion
	}
	for _, step := range append(steps, upgrades[from-1:]...) {
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("bring the tables up to date: %w", err)
		}
	}
	if version != schemaVersion {
		if _, err := conn.ExecContext(ctx, "INSERT INTO flow_schema (version) VALUES (?)", schemaVersion); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}
