package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// errRefused rolls a transition back whose fate is set.
var errRefused = errors.New("refused")

// locking writes one transition that takes or gives up keys, in a transaction of its own. What another execution holds is waited for
// only as long as its own transaction is open.
func (s *Store) locking(ctx context.Context, conn *pgx.Conn, batch []flow.Transition, i int, fates []error) error {
	t := &batch[i]
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, want := range t.Take {
			held, err := take(ctx, tx, want)
			if err != nil {
				return err
			}
			if held.Execution != want.Execution {
				fates[i] = &flow.LockedError{Lock: held}
				return errRefused
			}
		}
		if _, err := s.write(ctx, conn, true, batch, [][]int{{i}}, fates); err != nil {
			return err
		}
		if fates[i] != nil {
			return errRefused
		}
		for _, lock := range t.Drop {
			if _, err := tx.Exec(ctx, "DELETE FROM flow_lock WHERE key = $1 AND execution = $2", lock.Key, lock.Execution); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// take takes a key if nobody has it, and returns who has it then.
func take(ctx context.Context, tx pgx.Tx, want flow.Lock) (held flow.Lock, err error) {
	held.Key = want.Key
	for err = pgx.ErrNoRows; errors.Is(err, pgx.ErrNoRows); { // until it is there: who had it may give it up between the two
		if _, err = tx.Exec(ctx, "INSERT INTO flow_lock (key, execution, since) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", want.Key, want.Execution, want.Since); err != nil {
			return held, err
		}
		err = tx.QueryRow(ctx, "SELECT execution, since FROM flow_lock WHERE key = $1", want.Key).Scan(&held.Execution, &held.Since)
	}
	held.Since = held.Since.UTC()
	return held, err
}

// Locks implements flow.Store.
func (s *Store) Locks(ctx context.Context) ([]flow.Lock, error) {
	return query(ctx, s, func(row pgx.CollectableRow) (flow.Lock, error) {
		var lock flow.Lock
		err := row.Scan(&lock.Key, &lock.Execution, &lock.Since)
		lock.Since = lock.Since.UTC()
		return lock, err
	}, "SELECT key, execution, since FROM flow_lock ORDER BY key COLLATE \"C\"")
}
