package sqlitestore

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

//go:embed schema_locks.sql
var schemaLocks string

// held refuses a transition that would take a key of another execution. The writer is alone in the transaction of its batch.
func (w *writer) held(t *flow.Transition) (fate, err error) {
	for _, want := range t.Take {
		lock := flow.Lock{Key: want.Key}
		var since int64
		err := w.holder.QueryRow(want.Key).Scan(&lock.Execution, &since)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && lock.Execution == want.Execution:
		case err != nil:
			return nil, err
		default:
			lock.Since = time.UnixMicro(since).UTC()
			return &flow.LockedError{Lock: lock}, nil
		}
	}
	return nil, nil
}

// keep writes what a transition takes and gives up.
func (w *writer) keep(t *flow.Transition) error {
	for _, lock := range t.Take {
		if _, err := w.take.Exec(lock.Key, lock.Execution, lock.Since.UnixMicro()); err != nil {
			return err
		}
	}
	for _, lock := range t.Drop {
		if _, err := w.drop.Exec(lock.Key, lock.Execution); err != nil {
			return err
		}
	}
	return nil
}

// Locks implements flow.Store.
func (s *Store) Locks(ctx context.Context) ([]flow.Lock, error) {
	var out []flow.Lock
	err := s.query(ctx, func(rows *sql.Rows) error {
		var lock flow.Lock
		var since int64
		err := rows.Scan(&lock.Key, &lock.Execution, &since)
		lock.Since = time.UnixMicro(since).UTC()
		out = append(out, lock)
		return err
	}, "SELECT key, execution, since FROM flow_lock ORDER BY key")
	return out, err
}
