package cmdb

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/zhiyun-ops/zhiyun/internal/state"
)

// ErrResync says that a watcher asked for changes that are no longer kept: read everything and watch from there.
var ErrResync = errors.New("cmdb: the changes asked for are no longer kept; read again and watch from Revision")

// Event is one commit as a watcher sees it.
type Event struct {
	Revision int64
	Objects  []ObjectChange
}

// ObjectChange is one object of an event.
type ObjectChange struct {
	Ref
	Old, New Object // nil if it was not there, or is no more
}

// Watch yields every commit after a revision (as Revision or an Apply returned it) in order, each once and whole.
// It ends with ctx's error, or with ErrResync. I8: never a gap without that word.
func (db *DB) Watch(ctx context.Context, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for change, err := range db.state.Watch(ctx, after) {
			if errors.Is(err, state.ErrResync) {
				err = fmt.Errorf("%w: %w", ErrResync, err)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if event := eventOf(change); len(event.Objects) > 0 && !yield(event, nil) {
				return
			}
		}
	}
}

func eventOf(change state.Change) Event {
	event := Event{Revision: change.Revision}
	for _, row := range change.Rows {
		kind := Kind(row.Table)
		if i := kindOrder(kind); i < 0 || !kindTable[i].declared {
			continue
		}
		o := ObjectChange{Ref: Ref{kind, row.Key}}
		o.Old, _ = row.Old.(Object)
		o.New, _ = row.New.(Object)
		event.Objects = append(event.Objects, o)
	}
	return event
}
