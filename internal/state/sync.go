package state

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// syncs lets callers of Sync share barriers: whoever comes while one is under way shares the next.
type syncs struct {
	mu   sync.Mutex
	last *round        // guarded by mu; the round that newcomers may join
	turn chan struct{} // holds a token while no round is under way
}

// round is one barrier for all who asked before it began.
type round struct {
	done chan struct{}
	err  error // set before done is closed
}

func newSyncs() *syncs {
	s := &syncs{turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// Sync waits until the replica shows every commit that was acknowledged, to anybody, before the call: what is read
// afterwards is fresh. It asks the store's quorum, and fails if that does not answer: a nil error is never
// given on old rows. In a store in which nothing but this DB's tables changes it costs one read; otherwise one small
// write, shared by all who wait at the time.
func (db *DB) Sync(ctx context.Context) error {
	if err := db.Ready(ctx); err != nil {
		return err
	}
	for {
		db.syncs.mu.Lock()
		r, lead := db.syncs.last, false
		if r == nil {
			r, lead = &round{done: make(chan struct{})}, true
			db.syncs.last = r
		}
		db.syncs.mu.Unlock()
		if lead {
			r.err = db.lead(ctx, r)
			close(r.done)
		}
		select {
		case <-r.done:
		case <-db.stopped:
			return ErrStopped
		case <-ctx.Done():
			return fmt.Errorf("state: sync: %w", context.Cause(ctx))
		}
		if r.err == nil || lead || !errors.Is(r.err, errLeft) {
			return r.err
		}
	}
}

// errLeft says that the caller that led a round went away before it ended; the others try again.
var errLeft = errors.New("state: sync: the caller that asked for all went away")

// lead waits for its turn, closes the round to newcomers, and runs it.
func (db *DB) lead(ctx context.Context, r *round) error {
	var err error
	select {
	case <-db.syncs.turn:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-db.stopped:
		err = ErrStopped
	}
	db.syncs.mu.Lock()
	db.syncs.last = nil
	db.syncs.mu.Unlock()
	if err == nil {
		err = db.barrier(ctx)
		db.syncs.turn <- struct{}{}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	return fmt.Errorf("state: sync: %w", err)
}

// barrier asks for the store's revision; if the replica does not reach it by its own commits, a commit that does
// nothing else is made, and awaited.
func (db *DB) barrier(ctx context.Context) error {
	_, revision, err := db.config.Store.List(ctx, barrierKey)
	if err != nil {
		return err
	}
	if db.current.Load().revision >= revision {
		return nil
	}
	// Others wait for it as well: it is made whether or not whoever came first is rehearsing.
	revision, err = db.config.Store.Commit(store.Actual(ctx), store.Put(barrierKey, nil))
	if err != nil {
		return err
	}
	return db.until(ctx, func(v *view) bool { return v.revision >= revision })
}
