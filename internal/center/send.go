package center

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

const (
	// sinkTimeout bounds one sink, so that a dead one does not hold the others up for long.
	sinkTimeout = 10 * time.Second
	// A sink that fails is tried again after sinkBackoff, twice as long each time up to sinkBackoffMax, and given up after sinkAttempts: half an hour.
	sinkBackoff    = time.Second
	sinkBackoffMax = 5 * time.Minute
	sinkAttempts   = 14
)

// claim puts off what is due: until then it is this process that sends it. Should the process end, another sends it after that time.
func (d *Delivery) claim(now time.Time) (due []int) {
	until := now.Add(sinkTimeout * time.Duration(len(d.Targets)+1)).UTC()
	for i := range d.Targets {
		if t := &d.Targets[i]; !t.Delivered && !t.Dead && !t.Next.After(now) {
			t.Next, due = until, append(due, i)
		}
	}
	return due
}

// next is when the delivery is due again; zero if it is done with.
func (d *Delivery) next() time.Time {
	var next time.Time
	for _, t := range d.Targets {
		if !t.Delivered && !t.Dead && (next.IsZero() || t.Next.Before(next)) {
			next = t.Next
		}
	}
	return next
}

// settle says what became of the delivery.
func (d *Delivery) settle() {
	d.Outcome = Delivered
	for _, t := range d.Targets {
		switch {
		case t.Delivered:
		case t.Dead && d.Outcome != Failed:
			d.Outcome = Dead
		case !t.Dead:
			d.Outcome = Failed
		}
	}
}

// send tries all sinks of a delivery that are claimed and have not taken it, and records the outcome.
func (n *Notify) send(ctx context.Context, d Delivery) (Delivery, error) {
	claimed := d.Targets
	tried := make(map[string]error)
	sinks, broken := n.allSinks(ctx)
	for _, t := range claimed {
		if t.Delivered || t.Dead || !t.Next.After(n.now()) { // not claimed
			continue
		}
		sink, known := sinks[t.Sink]
		err := fmt.Errorf("center: there is no sink %q any more", t.Sink)
		if known {
			err = n.try(ctx, sink, t, d.Notice)
		} else if broken != nil {
			err = broken
		}
		tried[t.Sink] = err
		if err != nil {
			n.logger.Warn("a sink did not take a notice", "sink", t.Sink, "notice", d.Notice.ID, "attempt", t.Attempts+1, "error", err)
		}
	}
	done, _, err := n.deliveries.change(ctx, d.Notice.ID, func(now Delivery, exists bool) (Delivery, verdict, error) {
		if !exists { // trimmed meanwhile
			now = d
		}
		now.note(tried, n.now())
		return now, write, nil
	})
	if err != nil {
		return done.value, err
	}
	n.metrics.notice(done.value.Outcome)
	if done.value.Outcome == Failed {
		n.nudge()
	}
	return done.value, nil
}

// note writes down how attempts ended.
func (d *Delivery) note(tried map[string]error, now time.Time) {
	faults := make(map[string]string)
	for sink, why := range d.Faults {
		faults[sink] = why
	}
	for i := range d.Targets {
		t := &d.Targets[i]
		err, was := tried[t.Sink]
		if !was || t.Delivered || t.Dead {
			continue
		}
		t.Attempts++
		t.Next = time.Time{}
		switch {
		case err == nil:
			t.Delivered = true
			delete(faults, t.Sink)
			continue
		case hopeless(err) || t.Attempts >= sinkAttempts:
			t.Dead = true
		default:
			t.Next = now.Add(min(sinkBackoff<<min(t.Attempts-1, 20), sinkBackoffMax)).UTC()
		}
		faults[t.Sink] = clip(err.Error())
	}
	if d.Faults = faults; len(faults) == 0 {
		d.Faults = nil
	}
	d.At = now.UTC()
	d.settle()
}

// hopeless says that the sink has answered, and will not take this notice, or that it stands where none is called: trying again would end the same.
func hopeless(err error) bool {
	if errors.Is(err, errBarred) {
		return true
	}
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.status/100 == 4 && answer.status != http.StatusRequestTimeout && answer.status != http.StatusTooManyRequests
	}
	var mail *textproto.Error
	return errors.As(err, &mail) && mail.Code/100 == 5
}

// try has one sink take a notice, as its template says. A template that fails on this notice does not keep it back.
func (n *Notify) try(ctx context.Context, sink Sink, t Target, notice Notice) error {
	if t.Template != "" {
		found, err := n.templates.must(ctx, t.Template)
		if err == nil {
			var rendered Notice
			if rendered, err = found.value.render(notice); err == nil {
				notice = rendered
			}
		}
		if err != nil {
			n.logger.Warn("a notice goes out without its template", "notice", notice.ID, "template", t.Template, "error", err)
		}
	}
	bound, cancel := context.WithTimeout(ctx, sinkTimeout)
	defer cancel()
	return sink.Deliver(bound, notice)
}

// nudge has the loop of retries look again.
func (n *Notify) nudge() {
	select {
	case n.due <- struct{}{}:
	default:
	}
}

// retry sends what is due, and says when something will be.
func (n *Notify) retry(ctx context.Context) (next time.Time, err error) {
	all, err := n.deliveries.list(ctx, "")
	if err != nil {
		return time.Time{}, err
	}
	for _, one := range all {
		if d := one.value; d.Outcome != Failed && d.Outcome != Sending {
			continue
		}
		at := one.value.next()
		// One without targets was recorded by a server that knew none.
		if at.IsZero() && one.value.Outcome == Sending || !at.IsZero() && !at.After(n.now()) {
			if at, err = n.again(ctx, one.key); err != nil {
				return time.Time{}, err
			}
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, nil
}

// again claims what is due of a delivery, and sends it.
func (n *Notify) again(ctx context.Context, id string) (time.Time, error) {
	var due []int
	claimed, _, err := n.deliveries.change(ctx, id, func(d Delivery, exists bool) (Delivery, verdict, error) {
		d.Targets = append([]Target(nil), d.Targets...)
		if len(d.Targets) == 0 && d.Outcome == Sending {
			var err error
			if d.Targets, err = n.targets(ctx, d.Notice); err != nil {
				return d, keep, err
			}
		}
		if due = d.claim(n.now()); !exists || len(due) == 0 {
			return d, keep, nil // another process has it
		}
		return d, write, nil
	})
	if err != nil || len(due) == 0 {
		return claimed.value.next(), err
	}
	// Only what was claimed here counts as such.
	mine := claimed.value
	mine.Targets = nil
	for _, i := range due {
		mine.Targets = append(mine.Targets, claimed.value.Targets[i])
	}
	d, err := n.send(ctx, mine)
	return d.next(), err
}

// run retries until ctx ends.
func (n *Notify) run(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := n.retry(ctx)
		wait := time.Hour
		switch {
		case err != nil && ctx.Err() == nil:
			n.logger.Warn("notices cannot be sent again now", "error", err)
			wait = 5 * time.Second
		case !next.IsZero():
			wait = max(next.Sub(n.now()), 10*time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-n.due:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Redeliver has the sinks that have not taken a notice tried again, from the first attempt on: by Run. ErrNotFound if there is no such notice.
func (n *Notify) Redeliver(ctx context.Context, id, actor string) (Delivery, error) {
	if err := checkActor(actor); err != nil {
		return Delivery{}, err
	}
	done, _, err := n.deliveries.change(ctx, id, func(d Delivery, exists bool) (Delivery, verdict, error) {
		if !exists {
			return d, keep, fmt.Errorf("%w: notice %q", ErrNotFound, id)
		}
		if d.Outcome != Dead && d.Outcome != Failed {
			return d, keep, fault("notice", id, "it is %s; only one that is failed or dead can be sent again", d.Outcome)
		}
		d.Targets = append([]Target(nil), d.Targets...)
		for i := range d.Targets {
			if t := &d.Targets[i]; !t.Delivered {
				t.Dead, t.Attempts, t.Next = false, 0, n.now().UTC()
			}
		}
		d.Outcome = Failed
		return d, write, nil
	})
	if err == nil && store.RehearsalOf(ctx) == nil {
		n.nudge()
	}
	return done.value, err
}
