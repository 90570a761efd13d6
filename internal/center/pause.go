package center

import (
	"context"
	"time"
)

// Pause is the stop button of all automation: while it is pressed, for everything or for one module, controllers
// decide and record but do not act.
type Pause struct {
	shelf shelf[Paused]
	now   func() time.Time
}

// Paused is one pressed button.
type Paused struct {
	Module string    `json:"module"` // "" is everything
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// everything is the key of the global button; no module can be named so.
const everything = "*"

func pauseKey(module string) (string, error) {
	if module == "" {
		return everything, nil
	}
	return module, checkName("module", module)
}

// Press pauses a module, or everything for an empty name. Pressing again changes nothing: the first reason stands.
func (p *Pause) Press(ctx context.Context, module, actor, reason string) (Paused, error) {
	key, err := pauseKey(module)
	if err := firstOf(err, checkActor(actor)); err != nil {
		return Paused{}, err
	}
	if reason == "" {
		return Paused{}, fault("reason", reason, "say why: whoever finds it paused must know what to wait for")
	}
	done, _, err := p.shelf.change(ctx, key, func(old Paused, exists bool) (Paused, verdict, error) {
		if exists {
			return old, keep, nil
		}
		return Paused{Module: module, Actor: actor, Reason: reason, At: p.now().UTC()}, write, nil
	})
	return done.value, err
}

// Release lifts the button of a module, or the global one for an empty name. It says whether it was pressed.
func (p *Pause) Release(ctx context.Context, module, actor string) (bool, error) {
	key, err := pauseKey(module)
	if err := firstOf(err, checkActor(actor)); err != nil {
		return false, err
	}
	_, was, err := p.shelf.change(ctx, key, func(old Paused, _ bool) (Paused, verdict, error) { return old, remove, nil })
	return was, err
}

// Of returns the button that stops a module now, the global one first, and whether there is one.
func (p *Pause) Of(ctx context.Context, module string) (Paused, bool, error) {
	all, err := p.shelf.list(ctx, "")
	if err != nil {
		return Paused{}, false, err
	}
	for _, one := range all {
		if one.key == everything || module != "" && one.key == module {
			return one.value, true, nil // everything sorts first
		}
	}
	return Paused{}, false, nil
}

// List returns all pressed buttons, the global one first.
func (p *Pause) List(ctx context.Context) ([]Paused, error) {
	all, err := p.shelf.list(ctx, "")
	out := make([]Paused, len(all))
	for i, one := range all {
		out[i] = one.value
	}
	return out, err
}
