package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Elector lets one of several candidates lead at a time.
type Elector interface {
	// Campaign blocks until the candidate id leads under name, or ctx ends. The id names one live candidate:
	// a campaign under the id that leads already takes its own earlier term over at once (a process killed
	// and started again need not wait for the term of its former self), and that term ends.
	Campaign(ctx context.Context, name, id string) (*Term, error)
}

// Term is one candidate's time as leader.
//
//	Campaign ──> leading ──Resign, lease lost, taken over, elector closed──> done
//
// Done is a hint that comes as soon as the loss is known, but a paused process may act before it looks.
// What makes leadership safe is the fence: write through Fenced.
type Term struct {
	name, id, key string
	fence         int64
	resign        func(context.Context) error

	once sync.Once
	done chan struct{}
}

// NewTerm is for those who implement Elector: key is the leader's key as the backend has it, fence the
// revision that wrote it, and resign gives the key back. The implementation calls End when leadership is lost.
func NewTerm(name, id, key string, fence int64, resign func(context.Context) error) *Term {
	return &Term{name: name, id: id, key: key, fence: fence, resign: resign, done: make(chan struct{})}
}

// Name returns what is led.
func (t *Term) Name() string { return t.name }

// ID returns the candidate that leads.
func (t *Term) ID() string { return t.id }

// Done is closed when the term has ended, for whatever reason.
func (t *Term) Done() <-chan struct{} { return t.done }

// Fence returns the revision at which this term began. It grows from term to term of one name: a receiver
// outside of the store can refuse whatever carries a smaller one than it has seen.
func (t *Term) Fence() int64 { return t.fence }

// Resign ends the term and lets the next candidate in at once. It may be called again, and after the end.
func (t *Term) Resign(ctx context.Context) error {
	t.End()
	if err := t.resign(ctx); err != nil {
		return fmt.Errorf("store: resign as leader of %s: %w; the term lapses by itself", t.name, err)
	}
	return nil
}

// End closes Done. It is for those who implement Elector.
func (t *Term) End() { t.once.Do(func() { close(t.done) }) }

// Fenced returns a view of s whose commits succeed only while the term holds the leadership: each compares, in
// the same transaction, the leader's key with the term's fence, and fails with ErrFenced otherwise. The guard
// takes one operation of the commit. The term must come from an elector over the same backend as s.
func Fenced(s Store, t *Term) Store { return &fenced{s, t} }

type fenced struct {
	Store
	term *Term
}

func (f *fenced) Commit(ctx context.Context, ops ...Op) (int64, error) {
	if err := Validate(ops); err != nil {
		return 0, err
	}
	guard := Check(f.term.key, f.term.fence)
	guard.Whole = true
	revision, err := f.Store.Commit(ctx, append([]Op{guard}, ops...)...)
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Whole && conflict.Key == f.term.key {
		f.term.End()
		return 0, fmt.Errorf("%w: %s led %s from revision %d", ErrFenced, f.term.id, f.term.name, f.term.fence)
	}
	return revision, err
}

// leaderPrefix is where MemoryElector keeps its keys.
const leaderPrefix = "leader/"

// MemoryElector elects leaders among users of one Memory. It has no leases: a term ends by Resign, by a
// campaign under the same id, or by Depose, which does what an expired lease does.
type MemoryElector struct{ memory *Memory }

// NewMemoryElector returns an elector whose terms fence commits to m.
func NewMemoryElector(m *Memory) *MemoryElector { return &MemoryElector{m} }

// Campaign implements Elector.
func (e *MemoryElector) Campaign(ctx context.Context, name, id string) (*Term, error) {
	if name == "" || id == "" {
		return nil, fmt.Errorf("%w: a campaign needs a name and an id, have %q and %q", ErrInvalid, name, id)
	}
	key := leaderPrefix + name
	for {
		records, revision, err := e.memory.List(ctx, key)
		if err != nil {
			return nil, err
		}
		held := int64(0)
		for _, r := range records {
			if r.Key == key && string(r.Value) != id {
				held = -1
			} else if r.Key == key {
				held = r.Revision // our own former self
			}
		}
		if held >= 0 {
			fence, err := e.memory.Commit(ctx, Put(key, []byte(id)).At(held))
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return e.term(name, id, key, fence), nil
		}
		for event, err := range e.memory.Watch(ctx, key, revision) {
			if err != nil && !errors.Is(err, ErrCompacted) {
				return nil, err
			}
			if err != nil || event.touches(key) {
				break
			}
		}
	}
}

// term watches the leader's key until somebody else writes it or it is gone.
func (e *MemoryElector) term(name, id, key string, fence int64) *Term {
	ctx, cancel := context.WithCancel(context.Background())
	t := NewTerm(name, id, key, fence, func(ctx context.Context) error {
		_, err := e.memory.Commit(ctx, Delete(key).At(fence))
		if errors.Is(err, ErrConflict) {
			return nil // the term had ended
		}
		return err
	})
	go func() { // ends with the term, which the caller of Campaign owns
		defer t.End()
		for event, err := range e.memory.Watch(ctx, key, fence) {
			if err != nil || event.touches(key) {
				return
			}
		}
	}()
	go func() {
		defer cancel()
		<-t.Done()
	}()
	return t
}

// Depose takes the leadership away from whoever holds it under name, as an expired lease would.
func (e *MemoryElector) Depose(name string) {
	_, _ = e.memory.Commit(context.Background(), Delete(leaderPrefix+name)) // a delete without condition has nothing to fail on
}

// touches reports whether the event writes or removes key.
func (e Event) touches(key string) bool {
	for _, r := range e.Puts {
		if r.Key == key {
			return true
		}
	}
	for _, k := range e.Deletes {
		if k == key {
			return true
		}
	}
	return false
}
