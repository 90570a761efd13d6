package center

import (
	"context"
	"time"
)

// Freezes keep executions of flows from going on, for a module or for everything: what runs ends, nothing more starts. They are for people who
// change nothing for a while; Pause, which is for automation, leaves flows alone.
type Freezes struct {
	shelf shelf[Freeze]
	now   func() time.Time
}

// Freeze is one of them.
type Freeze struct {
	Module string    `json:"module"` // "" is everything
	Until  time.Time `json:"until,omitzero"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Press freezes a module, or everything for an empty name, until a time, or until it is lifted. Pressing again takes the new time and reason.
func (f *Freezes) Press(ctx context.Context, module string, until time.Time, actor, reason string) (Freeze, error) {
	key, err := pauseKey(module)
	if err := firstOf(err, checkActor(actor)); err != nil {
		return Freeze{}, err
	}
	if reason == "" {
		return Freeze{}, fault("reason", reason, "say why: whoever waits must know what for")
	}
	if !until.IsZero() && !until.After(f.now()) {
		return Freeze{}, fault("until", until, "give a time to come")
	}
	done, _, err := f.shelf.change(ctx, key, func(Freeze, bool) (Freeze, verdict, error) {
		return Freeze{Module: module, Until: until.UTC(), Actor: actor, Reason: reason, At: f.now().UTC()}, write, nil
	})
	return done.value, err
}

// Lift ends a freeze, and says whether there was one.
func (f *Freezes) Lift(ctx context.Context, module, actor string) (bool, error) {
	key, err := pauseKey(module)
	if err := firstOf(err, checkActor(actor)); err != nil {
		return false, err
	}
	_, was, err := f.shelf.change(ctx, key, func(old Freeze, _ bool) (Freeze, verdict, error) { return old, remove, nil })
	return was, err
}

// List returns the freezes in force, that of everything first.
func (f *Freezes) List(ctx context.Context) ([]Freeze, error) {
	all, err := f.shelf.list(ctx, "")
	out := make([]Freeze, 0, len(all))
	for _, one := range all {
		if one.value.Until.IsZero() || f.now().Before(one.value.Until) {
			out = append(out, one.value)
		}
	}
	return out, err
}

// sweep forgets those that are over.
func (f *Freezes) sweep(ctx context.Context) error {
	return sweep(ctx, f.shelf, func(one Freeze) bool { return !one.Until.IsZero() && !f.now().Before(one.Until) })
}
