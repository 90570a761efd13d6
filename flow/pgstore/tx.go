package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Tx is for Engine.StartTx: the start of an execution becomes part of a transaction of the embedder's on the store's database, and is as durable and as
// final as that. When it commits, the engines that share the store are told, and one of them claims the execution: whether Wake is called or not.
func (s *Store) Tx(tx pgx.Tx) flow.Tx { return outside{s, tx} }

// outside writes in a transaction that is not the writer's.
type outside struct {
	store *Store
	tx    pgx.Tx
}

// Insert implements flow.Tx.
func (o outside) Insert(ctx context.Context, t flow.Transition) (id string, err error) {
	if err := o.store.prepare(ctx); err != nil {
		return "", fmt.Errorf("pgstore: %w", err)
	}
	var commit string
	if err := o.tx.QueryRow(ctx, "SELECT current_setting('synchronous_commit')").Scan(&commit); err != nil {
		return "", fmt.Errorf("pgstore: %w", err)
	}
	if commit == "off" {
		return "", errors.New("pgstore: this transaction is not durable: synchronous_commit is off; leave it on")
	}
	t.Row.Owner = 0
	fates := make([]error, 1)
	// It waits for another transaction that is about to start the same flow by the same key.
	conn := o.tx.Conn()
	keeps := conn.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement // else there may be a proxy before the database, behind which sessions change
	if _, err := o.store.write(ctx, conn, keeps, []flow.Transition{t}, [][]int{{0}}, fates); err != nil {
		return "", fmt.Errorf("pgstore: insert: %w", err)
	}
	if errors.Is(fates[0], flow.ErrExists) && t.Row.Key != "" {
		err := o.tx.QueryRow(ctx, "SELECT id FROM flow_run WHERE flow = $1 AND key = $2", t.Row.Flow, t.Row.Key).Scan(&id)
		if err == nil {
			return id, nil
		}
		return "", fmt.Errorf("pgstore: insert: %w", errors.Join(fates[0], err))
	}
	if fates[0] != nil {
		return "", fmt.Errorf("pgstore: insert: %w", fates[0])
	}
	return t.Row.ID, nil
}
