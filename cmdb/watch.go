package cmdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/zhiyun-ops/zhiyun/internal/store"
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
	Object Object // as it is at the event's revision; nil if it was deleted
}

// Watch yields every commit after a revision (as Revision or an Apply returned it) in order, each once and whole.
// It ends with ctx's error, or with ErrResync. I8: never a gap without that word.
func (db *DB) Watch(ctx context.Context, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for raw, err := range db.store.Watch(ctx, "", after) {
			if errors.Is(err, store.ErrCompacted) {
				err = fmt.Errorf("%w: %w", ErrResync, err)
			}
			var event Event
			if err == nil {
				event, err = decodeEvent(raw)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if len(event.Objects) > 0 && !yield(event, nil) {
				return
			}
		}
	}
}

func decodeEvent(raw store.Event) (Event, error) {
	event := Event{Revision: raw.Revision}
	visible := func(key string) (Ref, bool) {
		ref, ok := refOf(key)
		return ref, ok && kindTable[kindOrder(ref.Kind)].declared
	}
	for _, record := range raw.Puts {
		ref, ok := visible(record.Key)
		if !ok {
			continue
		}
		object := kindTable[kindOrder(ref.Kind)].make()
		if err := json.Unmarshal(record.Value, object); err != nil {
			return event, fmt.Errorf("cmdb: watch: record %q: %w", record.Key, err)
		}
		event.Objects = append(event.Objects, ObjectChange{ref, object})
	}
	for _, key := range raw.Deletes {
		if ref, ok := visible(key); ok {
			event.Objects = append(event.Objects, ObjectChange{Ref: ref})
		}
	}
	return event, nil
}
