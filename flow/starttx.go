package flow

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Tx is a transaction of the embedder's on the database of a Store. sqlitestore.Store.Tx and pgstore.Store.Tx make it.
type Tx interface {
	// Insert writes a transition that creates an execution, and returns its ID; or the ID of the execution that is there, or in this
	// transaction, with the same flow and key.
	Insert(ctx context.Context, t Transition) (id string, err error)
}

// Transactional is a Store in which executions may appear that its engine did not put there: by a Tx.
type Transactional interface {
	Store
	// Runnable returns the IDs of open executions that wait for the engine to go on, and for nothing else: all, or many of them.
	Runnable(ctx context.Context) ([]string, error)
}

// patrol is how often the engine looks for executions that were started in a transaction and not woken.
const patrol = 800 * time.Millisecond

// StartTx starts the latest version of a flow within a transaction of the embedder's: the execution is there if and when that commits, together with
// whatever else it writes. Parameters and options are as for Start; what is started twice by one key in one transaction is not compared. Config.OnEvent is not told of its execution.started: only the transaction knows when that is
// durable. While too many executions are open it is a *BusyError, for a key that is known as well. Call Wake once it is committed; one that nobody wakes is found within a second.
//
//	tx, err := db.BeginTx(ctx, nil)
//	_, err = tx.ExecContext(ctx, "INSERT INTO orders ...")
//	id, err := engine.StartTx(ctx, store.Tx(tx), "expand", params)
//	err = tx.Commit()
//	err = engine.Wake(ctx, id)
func (e *Engine) StartTx(ctx context.Context, tx Tx, name string, params map[string]any, options ...StartOption) (string, error) {
	id, err := e.beginTx(ctx, tx, name, params, options)
	if err != nil {
		return "", fmt.Errorf("flow: start %s: %w", name, err)
	}
	return id, nil
}

func (e *Engine) beginTx(ctx context.Context, tx Tx, name string, params map[string]any, options []StartOption) (string, error) {
	s, err := e.prepare(ctx, name, params, options)
	if err == nil {
		err = errors.Join(e.room(&s.startOptions), s.bind())
	}
	if err != nil {
		return "", err
	}
	fresh, err := newID()
	if err != nil {
		return "", err
	}
	m := &machine{p: s.p, x: newExecution(&s.p.Definition, fresh), now: now(), hold: true}
	m.emit(s.started(s.p, s.params))
	id, err := tx.Insert(ctx, m.transition(0))
	if err == nil && id != fresh {
		err = e.same(ctx, s, id)
	}
	if err != nil {
		return "", err
	}
	return id, nil
}

// Wake has the engine go on with an execution that StartTx has started, after its transaction was committed. Before Run it does nothing: Run begins with what
// is there. It may be called again.
func (e *Engine) Wake(ctx context.Context, id string) error {
	row, err := e.config.Store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("flow: wake %s: %w", id, err)
	}
	e.mu.Lock()
	live := e.running && !e.draining
	e.mu.Unlock()
	switch {
	case !live || row.State.Ended():
		return nil
	case e.shared != nil:
		e.poke() // whoever looks first claims it
		return nil
	}
	return e.adopt(ctx, id, 0)
}

// watchStarts wakes what nobody has woken, until ctx ends.
func (e *Engine) watchStarts(ctx context.Context) {
	store, outside := e.config.Store.(Transactional)
	if !outside {
		return
	}
	tick := time.NewTicker(patrol)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		ids, err := store.Runnable(ctx)
		for _, id := range ids {
			e.mu.Lock()
			idle := e.running && !e.draining && e.runs[id] == nil
			e.mu.Unlock()
			if idle {
				err = errors.Join(err, e.Wake(ctx, id))
			}
		}
		if err != nil && ctx.Err() == nil {
			e.log.Warn("executions that were started in a transaction are not all running; they are looked for again", "error", err)
		}
	}
}
