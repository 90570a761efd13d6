package center

import (
	"context"
	"fmt"
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
	Device   string            `json:"device,omitempty"`
	Severity Severity          `json:"severity"` // default info
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
	Failed    Outcome = "failed"    // at least one sink did not take it; see Faults
	Muted     Outcome = "muted"     // a mute stopped it
	Silenced  Outcome = "silenced"  // a silence stopped it
)

// Delivery is a notice and what became of it.
type Delivery struct {
	Notice  Notice            `json:"notice"`
	Outcome Outcome           `json:"outcome"`
	By      string            `json:"by,omitempty"`     // key of the mute or silence that stopped it
	Faults  map[string]string `json:"faults,omitempty"` // by sink
	At      time.Time         `json:"at"`
}

// Sink takes notices to people: a log, a web hook, an alert system. Deliver may be called twice with one notice
// after a crash.
type Sink interface {
	Name() string
	Deliver(ctx context.Context, notice Notice) error
}

// Deliver sends a notice to every sink, unless a mute or silence stops it, and records which. A notice with the same
// ID is sent once. A sink that fails is recorded in the delivery and does not stop the others; the error
// is only of the center itself.
func (n *Notify) Deliver(ctx context.Context, notice Notice) (Delivery, error) {
	if notice.At.IsZero() {
		notice.At = n.now()
	}
	if notice.Severity == "" {
		notice.Severity = Info
	}
	notice.At = notice.At.UTC()
	if err := notice.check(); err != nil {
		return Delivery{}, err
	}
	outcome, by, err := n.stopped(ctx, notice)
	if err != nil {
		return Delivery{}, err
	}
	done, fresh, err := n.deliveries.change(ctx, notice.ID, func(old Delivery, exists bool) (Delivery, verdict, error) {
		if exists {
			return old, keep, nil
		}
		return Delivery{Notice: notice, Outcome: outcome, By: by, At: n.now().UTC()}, write, nil
	})
	if err != nil {
		return Delivery{}, err
	}
	if done.value.Outcome != Sending {
		if fresh {
			n.metrics.notice(done.value.Outcome)
		}
		return done.value, nil
	}
	final := done.value
	final.Outcome, final.Faults = n.send(ctx, notice)
	if _, _, err := n.deliveries.change(ctx, notice.ID, func(Delivery, bool) (Delivery, verdict, error) {
		final.At = n.now().UTC()
		return final, write, nil
	}); err != nil {
		return final, err
	}
	n.metrics.notice(final.Outcome)
	return final, nil
}

func (n Notice) check() error {
	if n.Text == "" || len(n.Text) > 16<<10 {
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

// sinkTimeout bounds one sink, so that a dead one does not hold the others up for long.
const sinkTimeout = 10 * time.Second

func (n *Notify) send(ctx context.Context, notice Notice) (Outcome, map[string]string) {
	var faults map[string]string
	for _, sink := range n.sinks {
		bound, cancel := context.WithTimeout(ctx, sinkTimeout)
		err := sink.Deliver(bound, notice)
		cancel()
		if err == nil {
			continue
		}
		if faults == nil {
			faults = make(map[string]string)
		}
		faults[sink.Name()] = clip(err.Error())
		n.logger.Warn("a sink did not take a notice", "sink", sink.Name(), "notice", notice.ID, "error", err)
	}
	if faults != nil {
		return Failed, faults
	}
	return Delivered, nil
}

// Deliveries lists what became of notices, newest first; an empty outcome matches all.
func (n *Notify) Deliveries(ctx context.Context, outcome Outcome, page Page) ([]Delivery, string, error) {
	all, err := byTime(ctx, n.deliveries, Delivery.at)
	if err != nil {
		return nil, "", err
	}
	return cutNewest(all, page, func(d Delivery) bool { return outcome == "" || d.Outcome == outcome })
}

func (d Delivery) at() time.Time { return d.Notice.At }

// resend sends what a former process recorded and did not finish.
func (n *Notify) resend(ctx context.Context) error {
	all, err := n.deliveries.list(ctx, "")
	if err != nil {
		return err
	}
	for _, one := range all {
		// A younger one may be on its way in another process.
		if one.value.Outcome == Sending && n.now().Sub(one.value.At) > sinkTimeout*time.Duration(len(n.sinks)+1) {
			if _, err := n.Deliver(ctx, one.value.Notice); err != nil {
				return err
			}
		}
	}
	return nil
}
