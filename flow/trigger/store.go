package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Store keeps triggers, what they have come to, and their histories. Hand in a store that is scoped to this package alone: its keys start with
// "trigger/" and "fire/".
type Store = store.Store

// NewMemory returns a store in memory, for tests and programs that need no durability.
func NewMemory() Store { return store.NewMemory() }

// keptFirings is how many entries of its history a trigger keeps.
const keptFirings = 100

// record is what is stored of a trigger.
type record struct {
	Trigger  Trigger `json:"trigger"`
	State    State   `json:"state"`
	revision int64   // 0: it is not there
}

func triggerKey(name string) string { return "trigger/" + name }

func firingKey(name string, n int64) string { return fmt.Sprintf("fire/%s/%02d", name, n%keptFirings) }

func read(in store.Record) (record, error) {
	r := record{revision: in.Revision}
	if err := json.Unmarshal(in.Value, &r); err != nil {
		return r, fmt.Errorf("flow/trigger: read %s: %w", in.Key, err)
	}
	return r, nil
}

// load returns one record, or ErrNotFound.
func (c *Controller) load(ctx context.Context, name string) (record, error) {
	found, _, err := c.config.Store.List(ctx, triggerKey(name))
	if err != nil {
		return record{}, fmt.Errorf("flow/trigger: %s: %w", name, err)
	}
	for _, one := range found {
		if one.Key == triggerKey(name) {
			return read(one)
		}
	}
	return record{}, fmt.Errorf("%w: trigger %q", ErrNotFound, name)
}

// write stores a record if nobody else has meanwhile, with what its history gains.
func (c *Controller) write(ctx context.Context, r record, firings []Firing) error {
	ops := make([]store.Op, 1, len(firings)+1)
	if len(firings) > keptFirings {
		r.State.Fired += int64(len(firings) - keptFirings)
		firings = firings[len(firings)-keptFirings:]
	}
	for i := range firings {
		r.State.Fired++
		firings[i].Trigger, firings[i].N = r.Trigger.Name, r.State.Fired
		value, err := json.Marshal(firings[i])
		if err != nil {
			return fmt.Errorf("flow/trigger: %w", err)
		}
		ops = append(ops, store.Put(firingKey(r.Trigger.Name, r.State.Fired), value))
	}
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("flow/trigger: %w", err)
	}
	ops[0] = store.Put(triggerKey(r.Trigger.Name), value).At(r.revision)
	_, err = c.config.Store.Commit(ctx, ops...)
	return err
}

// change reads a record, changes it and writes it, again if somebody else was faster.
func (c *Controller) change(ctx context.Context, name string, do func(*record) ([]Firing, error)) (record, error) {
	for range 10 {
		r, err := c.load(ctx, name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return r, err
		}
		if err != nil {
			r.Trigger.Name = name
		}
		firings, err := do(&r)
		if err != nil {
			return r, err
		}
		if err = c.write(ctx, r, firings); err == nil {
			return r, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return r, fmt.Errorf("flow/trigger: %s: %w", name, err)
		}
	}
	return record{}, fmt.Errorf("%w: trigger %q", ErrContended, name)
}

// History returns what has become of a trigger's last times and calls, at most 100, the newest first.
func (c *Controller) History(ctx context.Context, name string) ([]Firing, error) {
	r, err := c.load(ctx, name)
	if err != nil {
		return nil, err
	}
	found, _, err := c.config.Store.List(ctx, "fire/"+name+"/")
	if err != nil {
		return nil, fmt.Errorf("flow/trigger: %s: %w", name, err)
	}
	byN := make(map[int64]Firing, len(found))
	for _, one := range found {
		var f Firing
		if err := json.Unmarshal(one.Value, &f); err != nil {
			return nil, fmt.Errorf("flow/trigger: read %s: %w", one.Key, err)
		}
		byN[f.N] = f
	}
	var out []Firing
	for n := r.State.Fired; n > 0 && n > r.State.Fired-keptFirings; n-- {
		if f, ok := byN[n]; ok {
			out = append(out, f)
		}
	}
	return out, nil
}

// remove deletes a trigger with its history.
func (c *Controller) remove(ctx context.Context, name string) error {
	r, err := c.load(ctx, name)
	if err != nil {
		return err
	}
	fires, _, err := c.config.Store.List(ctx, "fire/"+name+"/")
	if err != nil {
		return fmt.Errorf("flow/trigger: %s: %w", name, err)
	}
	ops := []store.Op{store.Delete(triggerKey(name)).At(r.revision)}
	for _, one := range fires {
		ops = append(ops, store.Delete(one.Key))
	}
	if _, err := c.config.Store.Commit(ctx, ops...); errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: trigger %q", ErrContended, name)
	} else if err != nil {
		return fmt.Errorf("flow/trigger: delete %s: %w", name, err)
	}
	return nil
}

// nameOf is the trigger that a key is of.
func nameOf(key string) string { return strings.TrimPrefix(key, "trigger/") }
