package store

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// ErrRehearsed is how a commit of a rehearsal ends: its conditions held, and nothing was written. Whoever commits takes
// it for a failure, and so does nothing that follows from a commit.
var ErrRehearsed = errors.New("store: a rehearsal: what would be written is noted, and nothing is")

// Rehearsal notes what commits would have written. It is safe for concurrent use.
type Rehearsal struct {
	mu      sync.Mutex
	changes []Change // guarded by mu
}

// Change is one record that a commit would have written.
type Change struct {
	Key    string
	Before []byte // nil: there is none
	After  []byte // nil: it would be removed
}

type rehearsalKey struct{}

// Rehearse returns a context in which every store that was made with Rehearsable checks commits and notes them, and
// writes nothing.
func Rehearse(ctx context.Context) (context.Context, *Rehearsal) {
	r := &Rehearsal{}
	return context.WithValue(ctx, rehearsalKey{}, r), r
}

// Actual returns a context that belongs to no rehearsal, for commits that only make reads fresh.
func Actual(ctx context.Context) context.Context {
	return context.WithValue(ctx, rehearsalKey{}, (*Rehearsal)(nil))
}

// RehearsalOf is the rehearsal that ctx belongs to, nil if it is none: who would act beside a store asks for it first.
func RehearsalOf(ctx context.Context) *Rehearsal {
	r, _ := ctx.Value(rehearsalKey{}).(*Rehearsal)
	return r
}

// Note adds a change that no commit tells of.
func (r *Rehearsal) Note(changes ...Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, changes...)
}

// Changes returns what was noted, in order.
func (r *Rehearsal) Changes() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Change(nil), r.changes...)
}

// Rehearsable returns a view of s that can rehearse. Keys of changes begin with name. Outside of rehearsals it is s.
func Rehearsable(s Store, name string) Store { return &rehearsable{s, name} }

type rehearsable struct {
	Store
	name string
}

// Commit implements Store. In a rehearsal the conditions alone are committed, which writes nothing.
func (r *rehearsable) Commit(ctx context.Context, ops ...Op) (int64, error) {
	rehearsal := RehearsalOf(ctx)
	if rehearsal == nil {
		return r.Store.Commit(ctx, ops...)
	}
	if err := Validate(ops); err != nil {
		return 0, err
	}
	var checks []Op
	for _, op := range ops {
		if op.If != AnyRevision {
			checks = append(checks, Op{Kind: KindCheck, Key: op.Key, If: op.If, Whole: op.Whole})
		}
	}
	if len(checks) > 0 {
		if _, err := r.Store.Commit(ctx, checks...); err != nil {
			return 0, err
		}
	}
	var changes []Change
	for _, op := range ops {
		if op.Kind == KindCheck {
			continue
		}
		change := Change{Key: r.name + "/" + strings.TrimPrefix(op.Key, "/"), After: op.Value}
		records, _, err := r.List(ctx, op.Key)
		if err != nil {
			return 0, err
		}
		if len(records) > 0 && records[0].Key == op.Key {
			change.Before = records[0].Value
		}
		if op.Kind == KindDelete {
			change.After = nil
			if change.Before == nil {
				continue
			}
		}
		changes = append(changes, change)
	}
	rehearsal.Note(changes...)
	return 0, ErrRehearsed
}
