package gray

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run takes the open rollouts through their stages until ctx ends; it returns nil then, once the calls under way
// have returned. What fails is tried again at the next interval. Only the loss of leadership ends it early, with
// an error that wraps ErrFenced.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// pass works once on every open rollout.
func (c *Controller) pass(ctx context.Context) error {
	open, err := c.list(ctx, openPrefix)
	if err != nil {
		return err
	}
	byService := make(map[string][]saved)
	states := make(map[State]int)
	for _, s := range open {
		byService[s.Service] = append(byService[s.Service], s)
		states[s.Status.State]++
	}
	c.metrics.setOpen(states)
	var group errgroup.Group
	group.SetLimit(c.cfg.Parallel)
	errs := make([]error, len(byService))
	for i, service := range slices.Sorted(maps.Keys(byService)) {
		group.Go(func() error {
			errs[i] = c.service(ctx, byService[service])
			return nil
		})
	}
	_ = group.Wait() // its functions return nil; the errors are in errs
	return errors.Join(errs...)
}

// service works on the open rollouts of one service, oldest first.
func (c *Controller) service(ctx context.Context, open []saved) error {
	busy := slices.ContainsFunc(open, func(s saved) bool { return s.Status.State != Queued })
	var errs []error
	for _, s := range open {
		first := s.Status.State == Queued && !busy
		busy = busy || first
		if err := c.reconcile(ctx, s, first); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// reconcile does one step of one rollout: look, decide, record, act.
func (c *Controller) reconcile(ctx context.Context, s saved, first bool) error {
	at := now()
	seen := c.observe(ctx, s.Rollout, first, at)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	next, out := step(at, s.Rollout, seen, c.bug)
	c.metrics.verdict(next.Status.Verdict)
	if len(out.Events) > 0 || differs(s.Status, next.Status) {
		done, err := c.commit(ctx, s, next, out.Events)
		if errors.Is(err, ErrConflict) {
			return nil // somebody gave an order; the watch has woken the loop
		}
		if err != nil {
			return err
		}
		c.tell(done, out.Events)
	}
	if out.Set == nil {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if err := c.cfg.Weights.SetShares(call, s.Service, out.Set, c.cfg.Fence()); err != nil {
		return fmt.Errorf("gray: set shares of %q for rollout %q: %w; set again at the next look", s.Service, s.ID, err)
	}
	return nil
}

// observe reads what a step needs to know.
func (c *Controller) observe(ctx context.Context, r Rollout, first bool, at time.Time) observation {
	o := observation{First: first}
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if c.cfg.Stopped != nil && r.Status.State != Aborting {
		var err error
		if o.Why, o.Stopped, err = c.cfg.Stopped(call, r.Service, r.Module); err != nil {
			o.Why, o.Stopped = "whether automation is stopped is not known: "+err.Error(), true
		}
	}
	if r.Status.State == Queued {
		return o
	}
	shares, err := c.cfg.Weights.Shares(call, r.Service)
	if err != nil {
		o.SharesErr = err.Error()
	} else if shares == nil {
		shares = map[string]int{}
	}
	o.Shares = shares
	if r.Status.InForce.IsZero() {
		return o
	}
	call, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	members, complete, err := c.cfg.Outcomes.Outcomes(call, r.Service, r.Status.WindowFrom, at)
	if err != nil {
		o.WindowErr = err.Error()
		return o
	}
	o.Window = window(r, shares, members)
	o.Window.Complete = complete
	return o
}

// window tells the rollout's members from the others.
func window(r Rollout, shares map[string]int, members []MemberOutcome) Window {
	own := make(map[string]bool, len(r.New))
	for _, m := range r.New {
		own[m.ID] = true
	}
	for _, m := range r.New {
		if _, there := shares[m.ID]; shares != nil && !there {
			own[m.ID] = false // neither new nor old: what a dead device did says nothing of the others
		}
	}
	for _, id := range r.Status.Lost {
		own[id] = false
	}
	var w Window
	for _, m := range members {
		live, listed := own[m.ID]
		switch {
		case live:
			w.New = append(w.New, m)
		case !listed:
			w.Old = append(w.Old, m)
			w.HasOld = w.HasOld || m.Requests > 0
		}
	}
	for id, percent := range shares {
		if _, listed := own[id]; !listed && percent > 0 {
			w.HasOld = true
		}
	}
	return w
}

// saveEvery is how old the numbers of a stored verdict may get while nothing else changes.
const saveEvery = 5 * time.Second

// differs says whether the new status is worth a write of its own.
func differs(a, b Status) bool {
	return a.Verdict.Reason.Code != b.Verdict.Reason.Code || a.Verdict.Decision != b.Verdict.Decision ||
		b.Verdict.At.Sub(a.Verdict.At) >= saveEvery || !a.GapSince.Equal(b.GapSince) || !a.WindowFrom.Equal(b.WindowFrom) ||
		!maps.Equal(a.Actual, b.Actual) || !maps.EqualFunc(a.Missing, b.Missing, time.Time.Equal)
}

// tell passes transitions on once they are stored.
func (c *Controller) tell(s saved, events []Event) {
	for _, event := range events {
		c.metrics.transitions.WithLabelValues(event.Reason.Code).Inc()
		c.cfg.Logger.Info("gray: rollout", "rollout", event.Rollout, "service", event.Service, "from", event.From, "to", event.To,
			"stage", event.Stage, "percent", event.Percent, "reason", event.Reason.String())
		c.cfg.OnEvent(event)
	}
}
