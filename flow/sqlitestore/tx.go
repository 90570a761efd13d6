package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Tx is for Engine.StartTx: the start of an execution becomes part of a transaction of the embedder's on the store's database, and is as durable and as
// final as that. Begin it as a writer (_txlock=immediate): SQLite cannot make one of a transaction that has read what changed since. The engine waits
// while it is open, so end it soon; the pool must allow for two connections more than are in transactions.
func (s *Store) Tx(tx *sql.Tx) flow.Tx { return outside{s, tx} }

// Runnable implements flow.Transactional.
func (s *Store) Runnable(ctx context.Context) (ids []string, err error) {
	err = s.query(ctx, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, "SELECT id FROM flow_now JOIN flow_run USING (n) WHERE wake = 'runnable' AND wake_for IS NULL LIMIT 1000")
	return ids, err
}

// outside writes on a connection that is not the writer's.
type outside struct {
	store *Store
	tx    *sql.Tx
}

// Insert implements flow.Tx.
func (o outside) Insert(ctx context.Context, t flow.Transition) (id string, err error) {
	if err := o.store.ready(ctx); err != nil {
		return "", fmt.Errorf("sqlitestore: %w", err)
	}
	var sync int
	if err := o.tx.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&sync); err != nil {
		return "", fmt.Errorf("sqlitestore: %w", err)
	}
	if sync < 2 {
		return "", fmt.Errorf("sqlitestore: this transaction's connection: %w", notDurable("wal", sync))
	}
	if t.Row.Key != "" {
		err := o.tx.QueryRowContext(ctx, "SELECT id FROM flow_run WHERE flow = ? AND key = ?", t.Row.Flow, t.Row.Key).Scan(&id)
		if err == nil || !errors.Is(err, sql.ErrNoRows) {
			return id, err
		}
	}
	var w writer
	if err := w.prepare(ctx, o.tx); err != nil {
		return "", fmt.Errorf("sqlitestore: %w", err)
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fates, err := w.apply([]flow.Transition{t})
	if err == nil {
		err = fates[0]
	}
	if err != nil {
		return "", fmt.Errorf("sqlitestore: insert: %w", err)
	}
	return t.Row.ID, nil
}
