package store

import (
	"context"
	"errors"
	"iter"
	"strings"
)

// Prefixed returns a view of s in which every key carries prefix, unseen by the user of the view. Views nest.
func Prefixed(s Store, prefix string) Store { return &prefixed{s, prefix} }

type prefixed struct {
	Store
	prefix string
}

func (p *prefixed) strip(r Record) Record {
	r.Key = strings.TrimPrefix(r.Key, p.prefix)
	return r
}

func (p *prefixed) List(ctx context.Context, prefix string) ([]Record, int64, error) {
	records, revision, err := p.Store.List(ctx, p.prefix+prefix)
	for i := range records {
		records[i] = p.strip(records[i]) // a List's slice is the caller's own
	}
	return records, revision, err
}

func (p *prefixed) Watch(ctx context.Context, prefix string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for event, err := range p.Store.Watch(ctx, p.prefix+prefix, after) {
			out := Event{Revision: event.Revision}
			for _, r := range event.Puts {
				out.Puts = append(out.Puts, p.strip(r))
			}
			for _, key := range event.Deletes {
				out.Deletes = append(out.Deletes, strings.TrimPrefix(key, p.prefix))
			}
			if !yield(out, err) {
				return
			}
		}
	}
}

func (p *prefixed) Commit(ctx context.Context, ops ...Op) (int64, error) {
	if err := Validate(ops); err != nil {
		return 0, err
	}
	full := make([]Op, len(ops))
	for i, op := range ops {
		if !op.Whole {
			op.Key = p.prefix + op.Key
		}
		full[i] = op
	}
	revision, err := p.Store.Commit(ctx, full...)
	var conflict *ConflictError
	if errors.As(err, &conflict) && !conflict.Whole {
		own := *conflict
		own.Key = strings.TrimPrefix(own.Key, p.prefix)
		err = &own
	}
	return revision, err
}
