package center

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Notify is the notification center. A notice goes to the sinks that its routes name, every sink if none does, unless a mute stops it (for a kind of event of a
// module: an expansion mutes the load events that it answers) or a silence does (for the alerts of devices that are
// being worked on). What was done with each notice is recorded.
type Notify struct {
	mutes      shelf[Mute]
	silences   shelf[Silence]
	deliveries shelf[Delivery]
	templates  shelf[NoticeTemplate]
	routes     shelf[Route]
	specs      shelf[SinkSpec]
	sinks      []Sink
	client     *http.Client // of the sinks that were set up
	reach      reach
	owner      func(module string) string // may be nil
	due        chan struct{}              // something may be due
	silencer   Silencer
	now        func() time.Time
	logger     *slog.Logger
	metrics    *metrics
	most       int
}

// Mute stops notices of a kind about a module.
type Mute struct {
	Key    string     `json:"key"`    // of the act that muted
	Kind   string     `json:"kind"`   // of event, as in load; "" is every kind
	Module string     `json:"module"` // "" is every module
	Until  time.Time  `json:"until"`  // it ends by itself
	Lifted *time.Time `json:"lifted,omitempty"`
	Actor  string     `json:"actor"`
	Reason string     `json:"reason"`
	At     time.Time  `json:"at"`
}

func (m Mute) covers(n Notice, now time.Time) bool {
	return m.Lifted == nil && now.Before(m.Until) && (m.Kind == "" || m.Kind == n.Kind) && (m.Module == "" || m.Module == n.Module)
}

// Silence stops notices about devices.
type Silence struct {
	Key     string     `json:"key"`
	Devices []string   `json:"devices"`
	Until   time.Time  `json:"until"`
	Lifted  *time.Time `json:"lifted,omitempty"`
	Remote  string     `json:"remote,omitempty"` // its id in the Silencer, if one is configured
	Actor   string     `json:"actor"`
	Reason  string     `json:"reason"`
	At      time.Time  `json:"at"`
}

func (s Silence) covers(n Notice, now time.Time) bool {
	if s.Lifted != nil || !now.Before(s.Until) || n.Device == "" {
		return false
	}
	for _, device := range s.Devices {
		if device == n.Device {
			return true
		}
	}
	return false
}

// Silencer takes silences to another alert system, as Alertmanager does. Silence with a key it already knows returns
// the same id; Lift of what is gone is no error.
type Silencer interface {
	Silence(ctx context.Context, silence Silence) (id string, err error)
	Lift(ctx context.Context, id string) error
}

// Mute keeps a mute. The same key again changes nothing, except that a lifted or ended mute begins anew.
func (n *Notify) Mute(ctx context.Context, mute Mute) (Mute, error) {
	now := n.now()
	if mute.Kind == "" && mute.Module == "" {
		return Mute{}, fault("mute", mute.Key, "name a kind, a module or both: one that stops everything hides what matters")
	}
	if err := firstOf(checkKey("key", mute.Key), optional(checkName, "kind", mute.Kind), optional(checkName, "module", mute.Module),
		checkUntil("until", now, mute.Until), checkActor(mute.Actor)); err != nil {
		return Mute{}, err
	}
	mute.At, mute.Until, mute.Lifted = now.UTC(), mute.Until.UTC(), nil
	done, _, err := n.mutes.change(ctx, mute.Key, func(old Mute, exists bool) (Mute, verdict, error) {
		if exists && (old.Kind != mute.Kind || old.Module != mute.Module) {
			return old, keep, fmt.Errorf("%w: key %q mutes kind %q of module %q; use another key", ErrTaken, mute.Key, old.Kind, old.Module)
		}
		if exists && old.Lifted == nil && now.Before(old.Until) {
			return old, keep, nil
		}
		return mute, write, nil
	})
	return done.value, err
}

func optional(check func(field, value string) error, field, value string) error {
	if value == "" {
		return nil
	}
	return check(field, value)
}

// Unmute lifts the mute of a key. Nothing happens if there is none.
func (n *Notify) Unmute(ctx context.Context, key, actor string) error {
	if err := firstOf(checkKey("key", key), checkActor(actor)); err != nil {
		return err
	}
	_, _, err := n.mutes.change(ctx, key, func(old Mute, exists bool) (Mute, verdict, error) {
		now := n.now().UTC()
		if !exists || old.Lifted != nil {
			return old, keep, nil
		}
		old.Lifted = &now
		return old, write, nil
	})
	return err
}

// Mutes lists the mutes in force, or with all set those that ended too and are not yet swept, in order of key.
func (n *Notify) Mutes(ctx context.Context, all bool, page Page) ([]Mute, string, error) {
	list, err := n.mutes.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	now := n.now()
	return cut(list, page, func(m Mute) bool { return all || m.Lifted == nil && now.Before(m.Until) })
}

// MaxSilenced is how many devices one silence may name.
const MaxSilenced = 1000

// Silence keeps a silence, and takes it to the Silencer. The same key again changes nothing, except that a lifted or
// ended one begins anew.
func (n *Notify) Silence(ctx context.Context, silence Silence) (Silence, error) {
	now := n.now()
	if err := firstOf(checkKey("key", silence.Key), checkUntil("until", now, silence.Until), checkActor(silence.Actor)); err != nil {
		return Silence{}, err
	}
	if len(silence.Devices) == 0 || len(silence.Devices) > MaxSilenced {
		return Silence{}, fault("devices", fmt.Sprintf("%d devices", len(silence.Devices)), "name 1 to %d devices", MaxSilenced)
	}
	for _, device := range silence.Devices {
		if err := checkName("devices", device); err != nil {
			return Silence{}, err
		}
	}
	silence.At, silence.Until, silence.Lifted, silence.Remote = now.UTC(), silence.Until.UTC(), nil, ""
	done, _, err := n.silences.change(ctx, silence.Key, func(old Silence, exists bool) (Silence, verdict, error) {
		if exists && strings.Join(old.Devices, " ") != strings.Join(silence.Devices, " ") {
			return old, keep, fmt.Errorf("%w: key %q silences %s; use another key", ErrTaken, silence.Key, strings.Join(old.Devices, " "))
		}
		if exists && old.Lifted == nil && now.Before(old.Until) {
			return old, keep, nil
		}
		return silence, write, nil
	})
	if err != nil || n.silencer == nil || done.value.Remote != "" || store.RehearsalOf(ctx) != nil {
		return done.value, err
	}
	id, err := n.silencer.Silence(ctx, done.value)
	if err != nil {
		return done.value, fmt.Errorf("center: silence %q is in force here, but not in the alert system: %w", silence.Key, err)
	}
	done, _, err = n.silences.change(ctx, silence.Key, func(old Silence, exists bool) (Silence, verdict, error) {
		if !exists || old.Remote == id {
			return old, keep, nil
		}
		old.Remote = id
		return old, write, nil
	})
	return done.value, err
}

// Unsilence lifts the silence of a key, in the Silencer first. Nothing happens if there is none.
func (n *Notify) Unsilence(ctx context.Context, key, actor string) error {
	if err := firstOf(checkKey("key", key), checkActor(actor)); err != nil {
		return err
	}
	one, exists, err := n.silences.get(ctx, key)
	if err != nil || !exists {
		return err
	}
	if n.silencer != nil && one.value.Lifted == nil && store.RehearsalOf(ctx) == nil {
		id := one.value.Remote
		if id == "" {
			// The process may have ended between the alert system's answer and our note of it.
			if id, err = n.silencer.Silence(ctx, one.value); err != nil {
				return fmt.Errorf("center: find silence %q in the alert system: %w", key, err)
			}
		}
		if err := n.silencer.Lift(ctx, id); err != nil {
			return fmt.Errorf("center: lift silence %q in the alert system: %w", key, err)
		}
	}
	_, _, err = n.silences.change(ctx, key, func(old Silence, exists bool) (Silence, verdict, error) {
		now := n.now().UTC()
		if !exists || old.Lifted != nil {
			return old, keep, nil
		}
		old.Lifted = &now
		return old, write, nil
	})
	return err
}

// Silences lists the silences in force, or with all set those that ended too and are not yet swept, in order of key.
func (n *Notify) Silences(ctx context.Context, all bool, page Page) ([]Silence, string, error) {
	list, err := n.silences.list(ctx, "")
	if err != nil {
		return nil, "", err
	}
	now := n.now()
	return cut(list, page, func(s Silence) bool { return all || s.Lifted == nil && now.Before(s.Until) })
}

// keepEnded is how long an ended mute or silence can still be listed.
const keepEnded = 24 * time.Hour

// sweep removes what ended long ago, and the oldest deliveries over the bound.
func (n *Notify) sweep(ctx context.Context) error {
	edge := n.now().Add(-keepEnded)
	old := func(until time.Time, lifted *time.Time) bool {
		return until.Before(edge) || lifted != nil && lifted.Before(edge)
	}
	return errors.Join(
		sweep(ctx, n.mutes, func(m Mute) bool { return old(m.Until, m.Lifted) }),
		sweep(ctx, n.silences, func(s Silence) bool { return old(s.Until, s.Lifted) }),
		trim(ctx, n.deliveries, Delivery.at, n.most),
	)
}
