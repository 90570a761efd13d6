package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// ErrUnknown says that an apply was sent and its outcome was not learned: Sync, look, and decide.
var ErrUnknown = errors.New("state: the outcome is unknown; sync, look, and decide whether to apply again")

// chunkBytes is how large one record of a staged apply gets; a single row may be larger.
const chunkBytes = 512 << 10

// Stage does what Update does, for transactions of any size: readers and watchers on every replica see all of it at
// one revision, or nothing. It writes each row three times and takes a second per some ten thousand rows, and while
// the rows are copied to their records, writers of these rows wait; so it is for applies that do not fit an Update.
// One runs at a time, others wait. If the process dies in the middle, what was published is finished by another
// replica or at the next start, and what was not leaves no trace.
func (db *DB) Stage(ctx context.Context, fn func(tx *Tx) error, options ...UpdateOption) (int64, error) {
	u := db.updating(options)
	pause := newPause()
	for {
		if err := db.Ready(ctx); err != nil {
			return 0, err
		}
		if err := db.until(ctx, func(v *view) bool { return v.open == nil }); err != nil {
			return 0, fmt.Errorf("state: waiting for a staged apply before this one: %w", err)
		}
		tx, err := db.attempt(ctx, fn)
		if err != nil {
			return 0, err
		}
		if len(tx.writes) == 0 {
			return tx.v.revision, nil
		}
		if tx.v.open != nil {
			continue
		}
		revision, err := db.stage(ctx, u.store, tx)
		if !errors.Is(err, store.ErrConflict) {
			return revision, err
		}
		db.metrics.committed("conflict")
		if err := db.newer(ctx, tx.v, pause); err != nil {
			return 0, fmt.Errorf("state: stage: waiting to try again after %w: %w", store.ErrConflict, err)
		}
	}
}

// stage makes one attempt: chunks, then the record that publishes them, then the verdict.
func (db *DB) stage(ctx context.Context, s store.Store, tx *Tx) (int64, error) {
	id := uid.New()
	db.mu.Lock()
	db.mine[id], db.own[id] = undecided, struct{}{}
	db.mu.Unlock()
	defer func() {
		db.mu.Lock()
		delete(db.mine, id)
		db.mu.Unlock()
	}()

	published, err := db.publishGeneration(ctx, s, id, tx)
	if err != nil {
		db.mu.Lock()
		delete(db.own, id)
		db.mu.Unlock()
		// The chunks of an apply that is known not to be published are removed; otherwise the fold does it, when
		// it has seen what became of it.
		if errors.Is(err, store.ErrConflict) {
			db.sweep(context.WithoutCancel(ctx), id)
		}
		return 0, fmt.Errorf("state: stage %d rows: %w", len(tx.writes), err)
	}
	if err := db.seen(ctx, published); err != nil {
		return published, err
	}
	db.mu.Lock()
	v := db.mine[id]
	db.mu.Unlock()
	switch v {
	case accepted:
		db.metrics.committed("ok")
		return published, nil
	case refused:
		err := db.untilClosed(ctx, id) // the next attempt needs the place
		return 0, errors.Join(fmt.Errorf("state: stage %d rows: %w", len(tx.writes), store.ErrConflict), err)
	default:
		return 0, fmt.Errorf("state: stage %d rows: %w", len(tx.writes), ErrUnknown)
	}
}

// publishGeneration writes the chunks and then the one record that makes them count.
func (db *DB) publishGeneration(ctx context.Context, s store.Store, id string, tx *Tx) (int64, error) {
	head, err := s.Commit(ctx, store.Put(stageKey(id, stageHead), nil).IfAbsent())
	if err != nil {
		return 0, err
	}
	count := 0
	for chunk, err := range tx.chunks() {
		if err != nil {
			return 0, err
		}
		if _, err := s.Commit(ctx, store.Put(stageKey(id, chunkName(count)), chunk)); err != nil {
			return 0, err
		}
		count++
	}
	return s.Commit(ctx, store.Put(generationKey, generationJSON(id, count, 0)).At(tx.v.guard), store.Check(stageKey(id, stageHead), head))
}

// chunks cuts the transaction into records, and lets go of each row that it has passed on: a large apply is not held twice.
// It can be ranged over once.
func (tx *Tx) chunks() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var (
			rows []stagedRow
			size int
		)
		flush := func() bool {
			encoded, err := json.Marshal(rows)
			clear(rows)
			rows, size = rows[:0], 0
			return yield(encoded, err)
		}
		for _, n := range slices.SortedFunc(maps.Keys(tx.reads), compareNames) {
			row := stagedRow{Table: n.table, Key: n.key, Base: tx.reads[n]}
			if w, written := tx.writes[n]; written {
				row.Value, row.Delete = w.encoded, w.encoded == nil
				tx.writes[n] = nil
			}
			if size += len(n.key) + len(row.Value) + 64; size > chunkBytes && len(rows) > 0 {
				if !flush() {
					return
				}
				size = len(n.key) + len(row.Value) + 64
			}
			rows = append(rows, row)
		}
		flush()
	}
}

// fold is the goroutine of Run that finishes generations: this process's own at once, others when they stand still.
func (db *DB) fold(ctx context.Context) {
	pause := newPause()
	orphans := time.NewTicker(10 * db.config.StageGrace)
	defer orphans.Stop()
	before := make(map[string]int) // generations that were staged at the last tick, with their size
	for {
		changed := db.wake()
		v := db.current.Load()
		if g := v.open; g != nil {
			if err := db.finish(ctx, v); err != nil {
				if ctx.Err() != nil {
					return
				}
				db.config.Logger.Warn("state: could not write out a staged apply; trying again", "generation", g.id, "err", err)
				_ = pause.Wait(ctx)
				continue
			}
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-orphans.C:
			before = db.orphans(ctx, before)
		}
	}
}

// finish waits for its turn and copies the generation's rows to their records, then closes it. Two replicas that
// do it at once write the same.
func (db *DB) finish(ctx context.Context, v *view) error {
	g := v.open
	db.mu.Lock()
	_, own := db.own[g.id]
	db.mu.Unlock()
	if !own {
		grace, cancel := context.WithTimeout(ctx, db.config.StageGrace)
		err := db.until(grace, func(now *view) bool { return now.progress != v.progress || now.open == nil })
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err() // it moves: look again
		}
	}
	guard := v.guard
	if g.valid {
		folding, err := db.foldRows(ctx, g, guard)
		if err != nil {
			return lost(err)
		}
		guard = folding
	}
	if _, err := db.config.Store.Commit(ctx, store.Delete(generationKey).At(guard)); err != nil {
		return lost(err)
	}
	if err := db.untilClosed(ctx, g.id); err != nil {
		return err
	}
	db.sweep(ctx, g.id)
	db.config.Logger.Info("state: a staged apply is written out", "generation", g.id, "rows", len(g.rows), "valid", g.valid, "revision", g.published)
	return nil
}

// lost turns a conflict into nil: another replica finishes the generation.
func lost(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// foldRows copies the rows, under the condition that the generation stays as it is, and returns its record's
// revision. It says that it folds before it touches a row: from then on nobody judges the generation anew.
func (db *DB) foldRows(ctx context.Context, g *generation, guard int64) (int64, error) {
	if !g.folding {
		var err error
		record := generationJSON(g.id, g.chunks, g.published)
		if guard, err = db.config.Store.Commit(ctx, store.Put(generationKey, record).At(guard)); err != nil {
			return 0, err
		}
	}
	ops, size := []store.Op{store.Check(generationKey, guard)}, 0
	flush := func() error {
		if len(ops) == 1 {
			return nil
		}
		_, err := db.config.Store.Commit(ctx, ops...)
		ops, size = ops[:1:1], 0
		return err
	}
	for _, n := range slices.SortedFunc(maps.Keys(g.rows), compareNames) {
		row := g.rows[n]
		switch {
		case row.Delete:
			ops = append(ops, store.Delete(n.String()))
		case row.Value != nil:
			value := wrap(g.published, row.Value)
			ops, size = append(ops, store.Put(n.String(), value)), size+len(value)
		default:
			continue
		}
		if len(ops) == store.MaxOps || size > chunkBytes {
			if err := flush(); err != nil {
				return 0, err
			}
		}
	}
	return guard, flush()
}

// sweep removes the chunks of a generation that is closed or was never published; its head goes first, so that it
// cannot be published any more. What it leaves behind, orphans finds.
func (db *DB) sweep(ctx context.Context, id string) {
	if _, err := db.config.Store.Commit(ctx, store.Delete(stageKey(id, stageHead))); err != nil {
		return
	}
	records, _, err := db.config.Store.List(ctx, stagePrefix+id+"/")
	if err != nil {
		return
	}
	for batch := range slices.Chunk(records, store.MaxOps) {
		ops := make([]store.Op, len(batch))
		for i, r := range batch {
			ops[i] = store.Delete(r.Key)
		}
		if _, err := db.config.Store.Commit(ctx, ops...); err != nil {
			return
		}
	}
}

// orphans removes what nobody works on any more: staged chunks that are as they were one tick ago. It returns what
// there is now.
func (db *DB) orphans(ctx context.Context, before map[string]int) map[string]int {
	records, _, err := db.config.Store.List(ctx, stagePrefix)
	if err != nil {
		return before // asked again at the next tick
	}
	now := make(map[string]int)
	for _, r := range records {
		id, _, _ := strings.Cut(strings.TrimPrefix(r.Key, stagePrefix), "/")
		now[id]++
	}
	open := db.current.Load().open
	for id, size := range now {
		db.mu.Lock()
		_, own := db.own[id]
		db.mu.Unlock()
		if before[id] == size && !own && (open == nil || open.id != id) {
			db.sweep(ctx, id)
			db.config.Logger.Info("state: removed a staged apply that was given up", "generation", id, "chunks", size)
		}
	}
	return now
}
