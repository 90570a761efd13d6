package center

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Severity of a notice.
type Severity string

// Severities, mildest first.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Notice is something that people should know.
type Notice struct {
	ID       string            `json:"id"`   // the same id is delivered once
	Kind     string            `json:"kind"` // load, alert, flow, gray, drift, device, ...
	Module   string            `json:"module,omitempty"`
	Owner    string            `json:"owner,omitempty"` // default: the module's
	Device   string            `json:"device,omitempty"`
	Severity Severity          `json:"severity"`        // default info
	Title    string            `json:"title,omitempty"` // default: severity, kind, module and device
	Text     string            `json:"text"`
	Labels   map[string]string `json:"labels,omitempty"`
	At       time.Time         `json:"at"` // default now
}

// Outcome is what became of a notice.
type Outcome string

// Outcomes of a notice.
const (
	Sending   Outcome = "sending"   // recorded, not yet out; after a crash it is sent again
	Delivered Outcome = "delivered" // every sink took it
	Failed    Outcome = "failed"    // at least one sink has not taken it yet, see Faults; it is tried again
	Dead      Outcome = "dead"      // at least one sink was given up; Redeliver tries again
	Muted     Outcome = "muted"     // a mute stopped it
	Silenced  Outcome = "silenced"  // a silence stopped it
)

// Delivery is a notice and what became of it.
type Delivery struct {
	Notice  Notice            `json:"notice"`
	Outcome Outcome           `json:"outcome"`
	By      string            `json:"by,omitempty"`     // key of the mute or silence that stopped it
	Faults  map[string]string `json:"faults,omitempty"` // by sink
	Targets []Target          `json:"targets,omitempty"`
	At      time.Time         `json:"at"`
}

// Target is a sink that a notice goes to, and how far it is.
type Target struct {
	Sink      string    `json:"sink"`
	Template  string    `json:"template,omitempty"`
	Attempts  int       `json:"attempts,omitempty"`
	Delivered bool      `json:"delivered,omitempty"`
	Dead      bool      `json:"dead,omitempty"`
	Next      time.Time `json:"next,omitzero"` // when it is tried again, at the earliest
}

// Sink takes notices to people: a log, a web hook, an alert system. Deliver may be called twice with one notice
// after a crash.
type Sink interface {
	Name() string
	Deliver(ctx context.Context, notice Notice) error
}

// Deliver takes a notice to the sinks that its routes name, unless a mute or silence stops it, and records which. A notice with the same
// ID is taken once. A sink that fails is recorded in the delivery, does not stop the others, and is tried again by Run; the error
// is only of the center itself.
func (n *Notify) Deliver(ctx context.Context, notice Notice) (Delivery, error) {
	if notice.At.IsZero() {
		notice.At = n.now()
	}
	if notice.Severity == "" {
		notice.Severity = Info
	}
	if notice.Owner == "" && notice.Module != "" && n.owner != nil {
		notice.Owner = n.owner(notice.Module)
	}
	notice.At = notice.At.UTC()
	if err := notice.check(); err != nil {
		return Delivery{}, err
	}
	outcome, by, err := n.stopped(ctx, notice)
	if err != nil {
		return Delivery{}, err
	}
	var targets []Target
	if outcome == Sending {
		if targets, err = n.targets(ctx, notice); err != nil {
			return Delivery{}, err
		}
	}
	done, fresh, err := n.deliveries.change(ctx, notice.ID, func(old Delivery, exists bool) (Delivery, verdict, error) {
		if exists {
			return old, keep, nil
		}
		d := Delivery{Notice: notice, Outcome: outcome, By: by, Targets: targets, At: n.now().UTC()}
		d.claim(n.now())
		return d, write, nil
	})
	if err != nil {
		return Delivery{}, err
	}
	if !fresh || done.value.Outcome != Sending {
		if fresh {
			n.metrics.notice(done.value.Outcome)
		}
		return done.value, nil
	}
	return n.send(ctx, done.value)
}

// MostText bounds the text of a notice, in bytes.
const MostText = 16 << 10

func (n Notice) check() error {
	if n.Text == "" || len(n.Text) > MostText {
		return fault("text", n.Text, "say what happened, in at most 16 KiB")
	}
	if len(n.Labels) > 64 {
		return fault("labels", fmt.Sprintf("%d labels", len(n.Labels)), "give at most 64")
	}
	if n.Severity != Info && n.Severity != Warning && n.Severity != Critical {
		return fault("severity", n.Severity, "give info, warning or critical")
	}
	return firstOf(checkKey("id", n.ID), checkName("kind", n.Kind), optional(checkName, "module", n.Module), optional(checkName, "device", n.Device))
}

// stopped says what stops a notice.
func (n *Notify) stopped(ctx context.Context, notice Notice) (Outcome, string, error) {
	now := n.now()
	mutes, err := n.mutes.list(ctx, "")
	if err != nil {
		return "", "", err
	}
	for _, one := range mutes {
		if one.value.covers(notice, now) {
			return Muted, one.key, nil
		}
	}
	if notice.Device == "" {
		return Sending, "", nil
	}
	silences, err := n.silences.list(ctx, "")
	if err != nil {
		return "", "", err
	}
	for _, one := range silences {
		if one.value.covers(notice, now) {
			return Silenced, one.key, nil
		}
	}
	return Sending, "", nil
}

// Deliveries lists what became of notices, newest first; an empty outcome matches all.
func (n *Notify) Deliveries(ctx context.Context, outcome Outcome, page Page) ([]Delivery, string, error) {
	if outcomes := []Outcome{Sending, Delivered, Failed, Dead, Muted, Silenced}; outcome != "" && !slices.Contains(outcomes, outcome) {
		return nil, "", fault("outcome", outcome, "give one of %v", outcomes)
	}
	all, err := byTime(ctx, n.deliveries, Delivery.at)
	if err != nil {
		return nil, "", err
	}
	return cutNewest(all, page, func(d Delivery) bool { return outcome == "" || d.Outcome == outcome })
}

func (d Delivery) at() time.Time { return d.Notice.At }
