package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	runs := slices.Collect(maps.Values(e.runs))
	e.mu.Unlock()
	e.gate.refresh(held, runs)
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
func (g *gate) refresh(held []Lock, runs []*run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	live := make(map[string]bool, len(runs))
	for _, r := range runs {
		live[r.id], live[r.root] = true, true
	}
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

// inherit learns which locks an execution holds that another engine has run until now, those of its sub-flows too: its end has to free them.
func (e *Engine) inherit(p *program, x *Execution) {
	if e.shared == nil || x.Seq <= 1 || !p.locking() {
		return
	}
	held, err := e.Locks(context.Background())
	if err != nil {
		e.log.Warn("locks cannot be read: those that sub-flows took may outlive their execution", "execution", x.ID, "error", err)
		return
	}
	for _, lock := range held {
		if lock.Execution == x.holder() && !strings.HasPrefix(lock.Key, exclusivePrefix) {
			e.gate.seizeKey(lock.Execution, lock.Key, lock.Since)
		}
	}
}

// locking reports whether executions of the flow may hold locks.
func (p *program) locking() bool {
	return len(p.locks) > 0 || slices.ContainsFunc(p.steps, func(s *stepPlan) bool { return s.Flow != "" })
}

// strayLocks finds locks of executions that have ended, or are not there.
func strayLocks(ctx context.Context, store Store) ([]Violation, error) {
	held, err := store.Locks(ctx)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, lock := range held {
		row, err := store.Get(ctx, lock.Execution)
		switch {
		case errors.Is(err, ErrNotFound):
			out = append(out, Violation{lock.Execution, "it is not there, and holds " + lock.Key})
		case err != nil:
			return nil, err
		case row.State.Ended():
			again, err := store.Locks(ctx) // it may have ended between the two reads
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(again, func(l Lock) bool { return l.Key == lock.Key && l.Execution == lock.Execution }) {
				out = append(out, Violation{lock.Execution, fmt.Sprintf("it is %s, and holds %s", row.State, lock.Key)})
			}
		}
	}
	return out, nil
}
