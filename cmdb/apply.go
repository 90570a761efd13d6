package cmdb

import (
	"context"
	"errors"
	"fmt"
)

// Apply does exactly what plan says, all or nothing, and returns the revision at which it is done. If the world
// has moved so that the same declarations would now do anything else, it returns ErrStale and changes nothing.
// An empty plan changes nothing.
func (db *DB) Apply(ctx context.Context, plan *Plan, opts ...Option) (int64, error) {
	if plan == nil {
		return 0, fmt.Errorf("%w: no plan; make one with DB.Plan", ErrRequest)
	}
	s := db.stamp(opts...)
	if s.hash != "" && s.hash != plan.Hash {
		return 0, fmt.Errorf("%w (expected %s, it is %s)", ErrStale, s.hash, plan.Hash)
	}
	revision, err := db.update(ctx, s, func(t *tx) error {
		now, after, err := planOn(t.at, plan.declarations, plan.options)
		var faults Faults
		switch {
		case errors.As(err, &faults):
			return fmt.Errorf("%w: its relations do not hold any more: %w", ErrStale, err)
		case err != nil:
			return err
		case now.Hash != plan.Hash:
			return fmt.Errorf("%w (planned %s, it would be %s)", ErrStale, plan.Hash, now.Hash)
		case now.Empty():
			return nil
		}
		for i := range now.Changes {
			now.Changes[i].Fields = nil // they are the plan's, and those of a fleet are many
		}
		t.bump(guardModel)
		for _, c := range now.Changes {
			if c.Action == "delete" {
				t.delete(c.Ref)
				if c.Kind == KindModule {
					t.bump(guardModule(c.Name))
				}
				continue
			}
			t.put(after.puts[c.Ref], c.Action)
		}
		return nil
	})
	if err == nil && !plan.Empty() {
		db.logger.Info("cmdb: applied", "plan", plan.Hash, "changes", len(plan.Changes), "actor", s.actor, "revision", revision)
	}
	return revision, err
}

// Delete removes one object: a plan and its apply in one. Faults say what still needs it; ErrNotFound that it
// is not there.
func (db *DB) Delete(ctx context.Context, kind Kind, name string, opts ...Option) (int64, error) {
	if _, err := db.Get(kind, name); err != nil {
		return 0, err
	}
	plan, err := db.Plan(ctx, nil, Remove(kind, name))
	if err != nil {
		return 0, err
	}
	return db.Apply(ctx, plan, opts...)
}
