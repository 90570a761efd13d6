package gray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Keys. IDs and services are escaped, so that a "/" in one cannot reach into another's keys.
//
//	open/ID        a rollout that is not final
//	done/ID        a final one
//	active/SERVICE the ID of the rollout that alone may move the service's weights
//	event/ID/SEQ   one transition
const (
	openPrefix   = "open/"
	donePrefix   = "done/"
	activePrefix = "active/"
	eventPrefix  = "event/"
)

func openKey(id string) string        { return openPrefix + url.PathEscape(id) }
func doneKey(id string) string        { return donePrefix + url.PathEscape(id) }
func activeKey(service string) string { return activePrefix + url.PathEscape(service) }
func eventsKey(id string) string      { return eventPrefix + url.PathEscape(id) + "/" }
func eventKey(id string, seq int64) string {
	return fmt.Sprintf("%s%08d", eventsKey(id), seq)
}

// saved is a rollout as it was read, with the revision it was written at.
type saved struct {
	Rollout
	key      string
	revision int64
}

func decode(record Record) (saved, error) {
	s := saved{key: record.Key, revision: record.Revision}
	if err := json.Unmarshal(record.Value, &s.Rollout); err != nil {
		return saved{}, fmt.Errorf("gray: read record %q: %w; it was not written by this package: remove it", record.Key, err)
	}
	return s, nil
}

// list reads all rollouts under prefix, oldest first.
func (c *Controller) list(ctx context.Context, prefix string) ([]saved, error) {
	records, _, err := c.cfg.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("gray: list %s: %w", prefix, err)
	}
	out := make([]saved, 0, len(records))
	for _, record := range records {
		s, err := decode(record)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b saved) int {
		if n := a.Status.Created.Compare(b.Status.Created); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// get reads one rollout, open or done.
func (c *Controller) get(ctx context.Context, id string) (saved, error) {
	for _, key := range []string{openKey(id), doneKey(id), openKey(id)} { // it may move from open to done in between, or back
		records, _, err := c.cfg.Store.List(ctx, key)
		if err != nil {
			return saved{}, fmt.Errorf("gray: read rollout %q: %w", id, err)
		}
		for _, record := range records {
			if record.Key == key {
				return decode(record)
			}
		}
	}
	return saved{}, fmt.Errorf("%w: %q", ErrNotFound, id)
}

// commit writes the rollout that follows old, with its events, if old is still what is stored.
func (c *Controller) commit(ctx context.Context, old saved, next Rollout, events []Event) (saved, error) {
	// The service is held from the moment a rollout leaves its queue until it is final.
	var ops []Op
	switch state := next.Status.State; {
	case state == Running && !next.Status.Held:
		next.Status.Held = true
		ops = append(ops, store.Put(activeKey(next.Service), []byte(next.ID)).IfAbsent())
	case state.Final() && next.Status.Held:
		next.Status.Held = false
		ops = append(ops, store.Delete(activeKey(next.Service)))
	}
	value, err := json.Marshal(next)
	if err != nil {
		return saved{}, fmt.Errorf("gray: encode rollout %q: %w", next.ID, err)
	}
	to := saved{Rollout: next, key: openKey(next.ID)}
	if next.Status.State.Final() {
		to.key = doneKey(next.ID)
	}
	if to.key == old.key {
		ops = append(ops, store.Put(to.key, value).At(old.revision))
	} else {
		ops = append(ops, store.Put(to.key, value).IfAbsent())
		if old.key != "" {
			ops = append(ops, store.Delete(old.key).At(old.revision))
		}
	}
	for _, event := range events {
		value, err := json.Marshal(event)
		if err != nil {
			return saved{}, fmt.Errorf("gray: encode event of rollout %q: %w", next.ID, err)
		}
		ops = append(ops, store.Put(eventKey(event.Rollout, event.Seq), value).IfAbsent())
	}
	if to.revision, err = c.cfg.Store.Commit(ctx, ops...); err != nil {
		return saved{}, fmt.Errorf("gray: write rollout %q: %w", next.ID, err)
	}
	return to, nil
}

// events reads the transitions of a rollout and the revision of that view.
func (c *Controller) events(ctx context.Context, id string) ([]Event, int64, error) {
	records, revision, err := c.cfg.Store.List(ctx, eventsKey(id))
	if err != nil {
		return nil, 0, fmt.Errorf("gray: read events of %q: %w", id, err)
	}
	out := make([]Event, 0, len(records))
	for _, record := range records {
		event, err := decodeEvent(record)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, event)
	}
	return out, revision, nil
}

func decodeEvent(record Record) (Event, error) {
	var event Event
	if err := json.Unmarshal(record.Value, &event); err != nil {
		return Event{}, fmt.Errorf("gray: read record %q: %w; it was not written by this package: remove it", record.Key, err)
	}
	return event, nil
}

// EventOf reads the transition that a record of the controller's Store holds; false for a record of another kind. Who follows
// the Store (list, then watch) sees each transition exactly as it was committed with what it changed, and misses none: that
// is how an audit record is kept that a crash cannot make forget.
func EventOf(record Record) (Event, bool, error) {
	if !strings.HasPrefix(record.Key, eventPrefix) {
		return Event{}, false, nil
	}
	event, err := decodeEvent(record)
	return event, err == nil, err
}

// Events returns the transitions of a rollout, oldest first.
func (c *Controller) Events(ctx context.Context, id string) ([]Event, error) {
	events, _, err := c.events(ctx, id)
	if err == nil && len(events) == 0 {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	return events, err
}

// Watch yields the transitions of a rollout, from its first on, each once and in order, and ends after the one
// that made it final. An error is the last thing yielded; ctx ending is one.
func (c *Controller) Watch(ctx context.Context, id string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		seen := int64(0)
		for {
			events, revision, err := c.events(ctx, id)
			if err == nil && len(events) == 0 {
				err = fmt.Errorf("%w: %q", ErrNotFound, id)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			for i, event := range events {
				if event.Seq > seen && !yield(event, nil) {
					return
				}
				seen = max(seen, event.Seq)
				if i == len(events)-1 && event.To.Final() {
					return
				}
			}
			again, err := c.follow(ctx, id, revision, &seen, yield)
			if err != nil {
				yield(Event{}, err)
			}
			if !again {
				return
			}
		}
	}
}

// follow yields what is committed after revision; true means that the watch must list again.
func (c *Controller) follow(ctx context.Context, id string, revision int64, seen *int64, yield func(Event, error) bool) (bool, error) {
	for change, err := range c.cfg.Store.Watch(ctx, eventsKey(id), revision) {
		if errors.Is(err, ErrCompacted) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("gray: watch rollout %q: %w", id, err)
		}
		for _, record := range change.Puts {
			event, err := decodeEvent(record)
			if err != nil {
				return false, err
			}
			if event.Seq <= *seen {
				continue
			}
			*seen = event.Seq
			if !yield(event, nil) || event.To.Final() {
				return false, nil
			}
		}
	}
	return false, ctx.Err()
}

// prune removes rollouts that have been final for longer than Config.Keep.
func (c *Controller) prune(ctx context.Context) error {
	at := now()
	done, err := c.list(ctx, donePrefix)
	if err != nil {
		return err
	}
	for _, s := range done {
		if at.Sub(s.Status.Changed) < c.cfg.Keep {
			continue
		}
		// Events go first, in pieces that fit a transaction: a crash in between leaves a rollout, never orphans.
		for from := int64(1); from <= s.Status.Events; from += 100 {
			var ops []Op
			for seq := from; seq < from+100 && seq <= s.Status.Events; seq++ {
				ops = append(ops, store.Delete(eventKey(s.ID, seq)))
			}
			if _, err := c.cfg.Store.Commit(ctx, append(ops, store.Check(s.key, s.revision))...); err != nil {
				return fmt.Errorf("gray: remove events of old rollout %q: %w", s.ID, err)
			}
		}
		if _, err := c.cfg.Store.Commit(ctx, store.Delete(s.key).At(s.revision)); err != nil {
			return fmt.Errorf("gray: remove old rollout %q: %w", s.ID, err)
		}
	}
	return nil
}
