package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/internal/backoff"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// UpdateOption configures one Update or Stage.
type UpdateOption func(*updating)

type updating struct{ store store.Store }

// Under makes the commit depend on a leader's term: once that is over, it fails with store.ErrFenced.
func Under(term *store.Term) UpdateOption {
	return func(u *updating) { u.store = store.Fenced(u.store, term) }
}

// Update runs fn on the latest snapshot, and commits what it wrote at one revision, provided that every row it read
// or wrote is still the same. If not, fn runs again on a newer snapshot: it must have no effect but through tx. When
// Update returns without an error the change is durable and this replica shows it; the revision is that of the
// commit, or of the snapshot if fn wrote nothing.
//
// An error of fn is returned as it is, and nothing is written. store.ErrTooLarge says that the transaction read and
// wrote more rows than one commit takes: look for candidates in Tx.Snapshot, or Stage it. With any other error of the store the outcome may be unknown: Sync, look, and
// decide. A revision that comes with an error says that the commit is durable but ctx ended before it was seen here.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error, options ...UpdateOption) (int64, error) {
	u := db.updating(options)
	pause := newPause()
	for {
		tx, err := db.attempt(ctx, fn)
		if err != nil {
			return 0, err
		}
		if len(tx.writes) == 0 {
			return tx.v.revision, nil
		}
		if g := tx.v.open; g != nil && g.valid && tx.touches(g) {
			if err := db.untilClosed(ctx, g.id); err != nil {
				return 0, fmt.Errorf("state: waiting for a staged apply to be written out: %w", err)
			}
			continue
		}
		ops, size := tx.ops()
		if len(ops) > store.MaxOps || size > store.MaxBytes {
			return 0, fmt.Errorf("state: update of %d rows that depends on %d, %d bytes: %w", len(tx.writes), len(tx.reads), size, store.ErrTooLarge)
		}
		revision, err := u.store.Commit(ctx, ops...)
		switch {
		case err == nil:
			db.metrics.committed("ok")
			return revision, db.seen(ctx, revision)
		case !errors.Is(err, store.ErrConflict):
			db.metrics.committed("error")
			return 0, fmt.Errorf("state: update: %w", err)
		}
		db.metrics.committed("conflict")
		if err := db.newer(ctx, tx.v, pause); err != nil {
			return 0, fmt.Errorf("state: update: waiting to try again after %w: %w", store.ErrConflict, err)
		}
	}
}

func (db *DB) updating(options []UpdateOption) updating {
	u := updating{store: db.config.Store}
	for _, o := range options {
		o(&u)
	}
	return u
}

// attempt runs fn once.
func (db *DB) attempt(ctx context.Context, fn func(tx *Tx) error) (*Tx, error) {
	if err := db.Ready(ctx); err != nil {
		return nil, err
	}
	tx := newTx(db.current.Load())
	if err := fn(tx); err != nil {
		return nil, err
	}
	return tx, tx.err
}

// seen waits until the replica shows revision.
func (db *DB) seen(ctx context.Context, revision int64) error {
	if err := db.until(ctx, func(v *view) bool { return v.revision >= revision }); err != nil {
		return fmt.Errorf("state: committed at revision %d, but this replica does not show it yet: %w", revision, err)
	}
	return nil
}

// newer waits until the replica has moved beyond v, after a conflict that v did not foresee.
func (db *DB) newer(ctx context.Context, v *view, pause *backoff.Backoff) error {
	_ = pause.Wait(ctx) // with jitter, so that those who met at one row part
	return db.until(ctx, func(now *view) bool { return now.revision > v.revision })
}

// untilClosed waits until the generation is no longer open.
func (db *DB) untilClosed(ctx context.Context, id string) error {
	return db.until(ctx, func(v *view) bool { return v.open == nil || v.open.id != id })
}
