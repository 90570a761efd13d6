package flow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// lockPoll is how often the store is asked for the locks of other engines' executions, while somebody waits for one.
const lockPoll = time.Second

// Locks returns all locks that are held, by key.
func (e *Engine) Locks(ctx context.Context) ([]Lock, error) {
	held, err := e.config.Store.Locks(ctx)
	if err != nil {
		return nil, fmt.Errorf("flow: list locks: %w", err)
	}
	return held, nil
}

// refreshLocks brings what the gate knows in line with the store: other engines take locks and free them, too.
func (e *Engine) refreshLocks(ctx context.Context) error {
	held, err := e.Locks(ctx)
	switch {
	case ctx.Err() != nil:
		return nil // nobody goes on
	case err != nil:
		return err
	}
	e.mu.Lock()
	live := make(map[string]bool, len(e.runs))
	for id, r := range e.runs {
		live[id] = true
		live[r.root] = true
	}
	e.mu.Unlock()
	e.gate.refresh(held, live)
	return nil
}

// followLocks keeps up with the locks of other engines while somebody waits.
func (e *Engine) followLocks(ctx context.Context) {
	for {
		select {
		case <-e.gate.waiting:
		case <-e.gate.shut:
			return
		}
		for e.gate.anyWaits() {
			select {
			case <-time.After(lockPoll):
			case <-e.gate.shut:
				return
			}
			if err := e.refreshLocks(ctx); err != nil {
				e.log.Warn("locks cannot be read, will be tried again", "error", err)
			}
		}
	}
}

// follow tells that somebody waits for a lock.
func (g *gate) follow() {
	select {
	case g.waiting <- struct{}{}:
	default:
	}
}

func (g *gate) anyWaits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range g.locks.keys {
		if len(k.line) > 0 {
			return true
		}
	}
	return false
}

// refresh takes in what is stored. What a live run holds it knows best itself.
func (g *gate) refresh(held []Lock, live map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	stored := make(map[string]bool, len(held))
	for _, lock := range held {
		stored[lock.Key] = true
		if k := g.locks.keys[lock.Key]; (k == nil || k.holder == "") && !live[lock.Execution] {
			g.locks.seize(lock.Execution, lock.Key, lock.Since)
		}
	}
	for key, k := range g.locks.keys {
		if id, _, _ := strings.Cut(k.holder, "/"); k.holder != "" && !stored[key] && !live[id] {
			g.locks.release(at, k.holder, key)
		}
	}
	g.settle(at)
}

// seizeKey notes that a task holds its key already.
func (g *gate) seizeKey(holder, key string, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.locks.seize(holder, key, since)
}

// unlocked frees keys whose release is durable.
func (g *gate) unlocked(freed []keyChange) {
	for _, change := range freed {
		g.unlock(change.holder, change.key)
	}
}

// untaken gives back what a transition would have taken that was not stored. If another engine's execution has a key, it is noted.
func (g *gate) untaken(taken []keyChange, err error) {
	g.unlocked(taken)
	var locked *LockedError
	if errors.As(err, &locked) {
		g.seizeKey(locked.Lock.Execution, locked.Lock.Key, locked.Lock.Since)
	}
}
