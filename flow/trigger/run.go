package trigger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

const (
	// again is how long a failure of the store is waited out.
	again = time.Second
	// endPoll is how often it is looked whether the execution has ended that a start waits for.
	endPoll = 2 * time.Second
)

// Run keeps what the webhook door knows in line with the store, until ctx ends. Every server runs it.
func (c *Controller) Run(ctx context.Context) error {
	return c.follow(ctx, func(records []record) time.Time {
		known := make(map[string]*hook, len(records))
		for _, r := range records {
			if r.Trigger.Webhook == nil {
				continue
			}
			ready, err := r.Trigger.compile()
			if err != nil {
				c.log.Warn("a trigger cannot run", "trigger", r.Trigger.Name, "error", err)
				continue
			}
			known[r.Trigger.Name] = &hook{ready, r.State.Paused}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known, c.synced = known, true
		return time.Time{}
	})
}

// Lead starts flows on schedule, until ctx ends. One server at a time runs it; should two for a moment, nothing is started twice, since every
// start has the key of its time.
func (c *Controller) Lead(ctx context.Context) error {
	return c.follow(ctx, func(records []record) time.Time { return c.look(ctx, records) })
}

// follow calls do with all triggers: at first, whenever one changes, and at the time that do returns.
func (c *Controller) follow(ctx context.Context, do func([]record) time.Time) error {
	for ctx.Err() == nil {
		err := c.followOnce(ctx, do)
		if errors.Is(err, store.ErrFenced) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		c.log.Warn("triggers cannot be read, will be tried again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	return nil
}

func (c *Controller) followOnce(ctx context.Context, do func([]record) time.Time) error {
	inner, cancel := context.WithCancel(ctx)
	changed := make(chan error, 1)
	watched := make(chan struct{})
	close(watched)
	defer func() {
		cancel()
		<-watched
	}()
	var watching bool
	for {
		found, revision, err := c.config.Store.List(inner, "trigger/")
		if err != nil {
			return err
		}
		if !watching {
			watching, watched = true, make(chan struct{})
			go func() { // ends with inner; the deferred function waits for it
				defer close(watched)
				c.watch(inner, revision, changed)
			}()
		}
		records := make([]record, 0, len(found))
		for _, one := range found {
			r, err := read(one)
			if err != nil {
				c.log.Warn("a trigger cannot be read", "trigger", nameOf(one.Key), "error", err)
				continue
			}
			records = append(records, r)
		}
		next := do(records)
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(max(time.Until(next), 0))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-changed:
			if err != nil {
				return err
			}
		case <-timer:
		}
	}
}

// watch tells of changes; several at once are told once.
func (c *Controller) watch(ctx context.Context, revision int64, changed chan<- error) {
	for _, err := range c.config.Store.Watch(ctx, "trigger/", revision) {
		if err != nil {
			select {
			case changed <- err:
			case <-ctx.Done():
			}
			return
		}
		select {
		case changed <- nil:
		default:
		}
	}
}

// look acts on every schedule that is due, and returns when to look again.
func (c *Controller) look(ctx context.Context, records []record) time.Time {
	var next time.Time
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, r := range records {
		if r.Trigger.Schedule == nil || r.State.Paused != nil || ctx.Err() != nil {
			continue
		}
		at, err := c.act(ctx, r)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("a schedule waits", "trigger", r.Trigger.Name, "error", err)
		}
		sooner(at)
	}
	return next
}

// act does what is due of one schedule, and returns when to look at it again.
func (c *Controller) act(ctx context.Context, r record) (time.Time, error) {
	ready, err := r.Trigger.compile()
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now().UTC()
	if at, ok := ready.cron.next(r.State.Through); r.State.Waits.IsZero() {
		if !ok {
			return time.Time{}, nil
		}
		if at = ready.moment(at); at.After(now) {
			return at, nil
		}
	}
	running, err := c.runs(ctx, r.State.Execution)
	if err != nil {
		return now.Add(again), err
	}
	d := ready.decide(now, r.State, running)
	params, err := ready.params(nil)
	if err != nil {
		return time.Time{}, err
	}
	firings := d.firings
	for _, due := range d.starts {
		f := Firing{At: now, Due: due, Outcome: Started}
		id, err := c.start(ctx, ready, params, due)
		var busy *flow.BusyError
		switch {
		case errors.As(err, &busy):
			return now.Add(busy.After), err // nothing is stored: it is due then still
		case errors.Is(err, flow.ErrInvalid), errors.Is(err, flow.ErrNotFound), errors.Is(err, flow.ErrDenied):
			f.Outcome, f.Reason = Failed, err.Error()
		case err != nil:
			return now.Add(again), err
		default:
			f.Execution, d.state.Execution, d.state.Last = id, id, now
		}
		firings = append(firings, f)
	}
	for _, f := range firings {
		c.count(f.Outcome)
		c.log.Info("trigger", "trigger", r.Trigger.Name, "due", f.Due, "outcome", f.Outcome, "execution", f.Execution, "reason", f.Reason)
	}
	changed := d.state != r.State || len(firings) > 0
	r.State = d.state
	if changed {
		if err := c.write(ctx, r, firings); err != nil {
			return now.Add(again), err // somebody changed it: it is looked at anew, and starts have their keys
		}
	}
	if !d.state.Waits.IsZero() && (d.next.IsZero() || now.Add(endPoll).Before(d.next)) {
		return now.Add(endPoll), nil
	}
	return d.next, nil
}

func (c *Controller) start(ctx context.Context, ready *compiled, params map[string]any, due time.Time) (string, error) {
	options := append(ready.by(), flow.Key("trigger/"+ready.Name+"/"+due.UTC().Format(time.RFC3339)),
		flow.Because(fmt.Sprintf("cron %s, due %s", ready.Schedule.Cron, due.In(ready.cron.zone).Format(time.RFC3339))))
	return begun(c.config.Engine.Start(ctx, ready.Flow, params, options...))
}

// begun takes an execution that the key has started with other parameters for the one: a time, or a call's key, starts its flow once, and what the
// trigger or the call says has changed since.
func begun(id string, err error) (string, error) {
	var exists *flow.ExistsError
	if errors.As(err, &exists) {
		return exists.Execution, nil
	}
	return id, err
}

// runs reports whether an execution has not ended.
func (c *Controller) runs(ctx context.Context, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	x, err := c.config.Engine.Get(ctx, id)
	if errors.Is(err, flow.ErrNotFound) {
		return false, nil
	}
	return err == nil && !x.State.Ended(), err
}
