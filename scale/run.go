package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run decides on all modules at each interval and carries out orders until ctx ends; it returns nil then, once
// the calls under way have returned. What fails is tried again at the next interval. Only the loss of leadership
// ends it early, with an error that wraps ErrFenced.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// pass carries out the open orders and decides once on every module.
func (c *Controller) pass(ctx context.Context) error {
	open, err := c.orders(ctx, openPrefix)
	if err != nil {
		return err
	}
	c.metrics.open.Set(float64(len(open)))
	errs := []error{c.carryOut(ctx, open)}
	// What was just carried out, and the devices as they are after it: read in this order, no device is missed.
	if open, err = c.orders(ctx, openPrefix); err != nil {
		return errors.Join(append(errs, err)...)
	}
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	modules, err := c.cfg.Modules.Modules(call)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("scale: list modules: %w", err))...)
	}
	memories, err := c.memories(ctx, statePrefix)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := c.file(ctx, open, modules); err != nil {
		errs = append(errs, err)
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Name, b.Name) })
	return errors.Join(append(errs, c.decideAll(ctx, modules, memories, open))...)
}

// decided is one module with what was decided about it.
type decided struct {
	module   Module
	memory   memory
	decision Decision
	err      error
}

// decideAll reads loads and decides, several modules at a time; then it orders, one module after the other, so
// that no idle device is picked twice.
func (c *Controller) decideAll(ctx context.Context, modules []Module, memories map[string]memory, open []saved) error {
	at := now()
	all := make([]decided, len(modules))
	var group errgroup.Group
	group.SetLimit(c.cfg.Parallel)
	for i := range modules {
		group.Go(func() error {
			d := &all[i]
			d.memory = memories[modules[i].Name]
			d.memory.Module = modules[i].Name
			d.module = view(at, modules[i].filled(), &d.memory, open)
			d.decision, d.err = c.decideOne(ctx, at, d.module)
			return nil
		})
	}
	_ = group.Wait() // its functions return nil; the errors are in all
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errs []error
	pool := &pool{controller: c, open: open}
	for i := range all {
		errs = append(errs, all[i].err, c.act(ctx, &all[i], pool))
	}
	return errors.Join(errs...)
}

// decideOne reads the load of one module and decides.
func (c *Controller) decideOne(ctx context.Context, at time.Time, m Module) (Decision, error) {
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	p := m.Policy
	back := max(p.InAfter, p.Window, p.ReactWithin)
	if p.Target == 0 {
		back = max(back, 2*time.Hour) // what Target is learnt from
	}
	h, err := c.cfg.Metrics.Load(call, m.Name, at.Add(-back-p.StaleAfter-p.ReactWithin), at)
	if err != nil {
		d := decide(at, m, nil, c.bug) // may still refill the module
		if d.Reason.Code == CodeDataMissing {
			d.Reason = Reason{Code: CodeError, Text: err.Error()}
		}
		return d, fmt.Errorf("scale: read load of %q: %w", m.Name, err)
	}
	return decide(at, m, h, c.bug), nil
}

// act notes a decision and orders what it asks for.
func (c *Controller) act(ctx context.Context, d *decided, pool *pool) error {
	order, err := c.pick(ctx, d, pool)
	c.metrics.decisions.WithLabelValues(d.decision.Reason.Code).Inc()
	last := d.memory.Decision
	c.mu.Lock()
	if live, ok := c.live[d.module.Name]; ok {
		last = live
	}
	c.live[d.module.Name] = d.decision
	c.mu.Unlock()
	news := last.Reason.Code != d.decision.Reason.Code || last.Want != d.decision.Want
	if err != nil {
		return err
	}
	if order != nil {
		d.memory.Decision = d.decision
		c.tell(Event{Module: d.module.Name, Kind: Decided, Reason: d.decision.Reason, Decision: &d.decision})
		if _, err = c.order(ctx, &d.memory, *order); err == nil {
			pool.take(*order)
		}
	} else if news || d.decision.At.Sub(d.memory.Decision.At) >= saveEvery {
		d.memory.Decision = d.decision
		if _, err = c.remember(ctx, d.memory); err == nil && news {
			c.tell(Event{Module: d.module.Name, Kind: Decided, Reason: d.decision.Reason, Decision: &d.decision})
		}
	}
	if errors.Is(err, ErrConflict) {
		return nil // somebody ordered or paused meanwhile: the next pass sees it
	}
	return err
}

// saveEvery is how old a stored decision may get while the code and the count stay the same.
const saveEvery = 30 * time.Second

// pick turns a decision into an order, nil if there is nothing to order.
func (c *Controller) pick(ctx context.Context, d *decided, pool *pool) (*Order, error) {
	m := d.module
	o := &Order{Module: m.Name, Reason: d.decision.Reason, Created: d.decision.At}
	switch {
	case d.decision.Delta > 0:
		idle, err := pool.idle(ctx)
		if err != nil {
			d.decision.refuse(CodeError, err.Error())
			return nil, err
		}
		// By count where there is one type, by capacity where there are several.
		p := Place(d.decision.Shortage, idle, m.Capacity, m.prefs(), m.most(d.decision))
		if len(p.Picked) == 0 {
			d.decision.refuse(CodeNoDevices, "")
			return nil, nil
		}
		o.Direction, o.Devices = Out, devices(p.Picked)
		d.decision.Delta = len(p.Picked)
		if p.Short > 0 {
			d.decision.Reason.Numbers = append(d.decision.Reason.Numbers, Number{"short", p.Short})
		}
	case d.decision.Delta < 0:
		o.Direction = In
		o.Devices = Leave(d.decision.Keep, m.Min, -d.decision.Delta, m.staying(), m.Capacity, m.prefs())
		if len(o.Devices) == 0 {
			d.decision.refuse(CodeInBand, "no device can leave without falling below what is needed")
			return nil, nil
		}
		d.decision.Delta = -len(o.Devices)
	default:
		return nil, nil
	}
	d.decision.Want = d.decision.Have + d.decision.Delta
	o.Reason, o.Count = d.decision.Reason, len(o.Devices)
	return o, nil
}

// most is how many devices an order to grow may have.
func (m Module) most(d Decision) int {
	n := d.Delta
	if len(m.Capacity) > 1 { // smaller devices than the mean need more of them
		n = m.Policy.PerHour - m.Spent
		if m.Policy.OutStep > 0 {
			n = min(n, m.Policy.OutStep)
		}
		if m.Max > 0 {
			n = min(n, m.Max-d.Have)
		}
	}
	return n
}

// refuse turns a decision into a hold.
func (d *Decision) refuse(code, text string) {
	d.Delta, d.Want, d.Shortage, d.Keep = 0, d.Have, 0, 0
	d.Reason.Code, d.Reason.Text = code, text
}

// order stores a new order; from then on it will be launched. The memory it is based on must be unchanged.
func (c *Controller) order(ctx context.Context, m *memory, o Order) (Order, error) {
	m.Seq++
	o.State = Planned
	o.Key = o.Module + "-" + string(o.Direction) + "-" + strconv.FormatInt(m.Seq, 10) + "-" + strconv.FormatInt(o.Created.UnixMilli(), 36)
	if o.Direction == Out {
		m.LastOut = o.Created
	} else {
		m.LastIn = o.Created
	}
	m.Spent = append(m.Spent, spent{At: o.Created, Count: o.Count})
	op, err := put(openKey(o.Key), o)
	if err != nil {
		return o, err
	}
	if _, err := c.remember(ctx, *m, op.IfAbsent()); err != nil {
		return o, err
	}
	c.metrics.orders.WithLabelValues(string(o.Direction), string(o.State)).Inc()
	c.tell(Event{Module: o.Module, Kind: Ordered, Reason: o.Reason, Order: &o})
	return o, nil
}

// view adds to a module what was done before and what is under way.
func view(at time.Time, m Module, mem *memory, open []saved) Module {
	m.Spent = mem.recent(at)
	m.Paused = m.Paused || mem.Paused
	m.LastOut, m.LastIn, m.LastFail, m.Fails = latest(m.LastOut, mem.LastOut), latest(m.LastIn, mem.LastIn), mem.LastFail, mem.Fails
	m.Pending, m.Leaving = slices.Clone(m.Pending), slices.Clone(m.Leaving)
	for _, o := range open {
		if o.Module != m.Name {
			continue
		}
		for _, d := range o.Devices {
			same := func(other Device) bool { return other.Name == d.Name }
			switch {
			case o.Direction == Out && !slices.ContainsFunc(m.Pending, same):
				m.Pending = append(m.Pending, d)
			case o.Direction == In && slices.ContainsFunc(m.Serving, same) && !slices.Contains(m.Leaving, d.Name):
				m.Leaving = append(m.Leaving, d.Name)
			}
		}
	}
	return m
}
