package center

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Changes is the change log: what was done to a module, by whom and why.
type Changes struct {
	shelf shelf[Change]
	now   func() time.Time
	most  int
}

// Change is one change record.
type Change struct {
	Key       string          `json:"key"`
	At        time.Time       `json:"at"` // default now; part of the record's place in the log
	Module    string          `json:"module"`
	Kind      string          `json:"kind"` // expand, contract, repair, ...
	Devices   []string        `json:"devices,omitempty"`
	Execution string          `json:"execution,omitempty"`
	Actor     string          `json:"actor"`
	Reason    string          `json:"reason"`
	Detail    json.RawMessage `json:"detail,omitempty"`
	// Undone is when the change was taken back, with UndoneBy and UndoneReason: a record is never removed for that.
	Undone       *time.Time `json:"undone,omitempty"`
	UndoneBy     string     `json:"undone_by,omitempty"`
	UndoneReason string     `json:"undone_reason,omitempty"`
}

// Record appends a change record. The same key again changes nothing and returns the record that stands; with
// another module or kind it is ErrTaken.
func (c *Changes) Record(ctx context.Context, change Change) (Change, error) {
	if err := firstOf(checkKey("key", change.Key), checkName("module", change.Module), checkName("kind", change.Kind),
		checkActor(change.Actor), checkDetail("detail", change.Detail)); err != nil {
		return Change{}, err
	}
	if len(change.Devices) > MaxSilenced {
		return Change{}, fault("devices", fmt.Sprintf("%d devices", len(change.Devices)), "name at most %d in one record", MaxSilenced)
	}
	if change.At.IsZero() {
		change.At = c.now()
	}
	change.At, change.Undone, change.UndoneBy, change.UndoneReason = change.At.UTC(), nil, "", ""
	var compact bytes.Buffer
	if len(change.Detail) > 0 {
		if err := json.Compact(&compact, change.Detail); err != nil {
			return Change{}, fault("detail", string(change.Detail), "give valid JSON")
		}
		change.Detail = compact.Bytes()
	}
	done, _, err := c.shelf.change(ctx, change.Key, func(old Change, exists bool) (Change, verdict, error) {
		switch {
		case !exists:
			return change, write, nil
		case old.Module != change.Module || old.Kind != change.Kind:
			return old, keep, fmt.Errorf("%w: key %q records %s of module %s; use another key", ErrTaken, change.Key, old.Kind, old.Module)
		}
		return old, keep, nil
	})
	return done.value, err
}

// Undo marks the record of a key as taken back. Nothing happens if there is none or it is already.
func (c *Changes) Undo(ctx context.Context, key, actor, reason string) error {
	if err := firstOf(checkKey("key", key), checkActor(actor)); err != nil {
		return err
	}
	_, _, err := c.shelf.change(ctx, key, func(old Change, exists bool) (Change, verdict, error) {
		if !exists || old.Undone != nil {
			return old, keep, nil
		}
		now := c.now().UTC()
		old.Undone, old.UndoneBy, old.UndoneReason = &now, actor, reason
		return old, write, nil
	})
	return err
}

// Get returns the record of a key, or ErrNotFound.
func (c *Changes) Get(ctx context.Context, key string) (Change, error) {
	one, err := c.shelf.must(ctx, key)
	return one.value, err
}

// ChangeFilter picks change records; empty fields match all.
type ChangeFilter struct {
	Module    string
	Execution string
	Since     time.Time
}

// List returns the matching records, newest first. Page.After is the key that the former page ended with.
func (c *Changes) List(ctx context.Context, filter ChangeFilter, page Page) ([]Change, string, error) {
	all, err := byTime(ctx, c.shelf, Change.at)
	if err != nil {
		return nil, "", err
	}
	return cutNewest(all, page, func(v Change) bool {
		return (filter.Module == "" || v.Module == filter.Module) &&
			(filter.Execution == "" || v.Execution == filter.Execution) && !v.At.Before(filter.Since)
	})
}

func (c Change) at() time.Time { return c.At }

// sweep removes the oldest records over the bound.
func (c *Changes) sweep(ctx context.Context) error { return trim(ctx, c.shelf, Change.at, c.most) }
