package scale

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Plan is what Out or In did, or with dryRun would have done.
type Plan struct {
	Decision Decision `json:"decision"`
	Order    Order    `json:"order"`
	DryRun   bool     `json:"dry_run"`
}

// Out orders n more devices for a module, as actor's decision: cooldown, pause and load do not count, Max and the
// idle devices do. With dryRun nothing is stored. The order is stored when Out returns; the running controller
// launches it.
func (c *Controller) Out(ctx context.Context, module string, n int, actor string, dryRun bool) (Plan, error) {
	return c.byHand(ctx, module, n, Out, actor, dryRun)
}

// In orders n devices of a module to leave, as actor's decision: cooldown, pause and load do not count, Min does.
// With dryRun nothing is stored.
func (c *Controller) In(ctx context.Context, module string, n int, actor string, dryRun bool) (Plan, error) {
	return c.byHand(ctx, module, n, In, actor, dryRun)
}

func (c *Controller) byHand(ctx context.Context, module string, n int, direction Direction, actor string, dryRun bool) (Plan, error) {
	for {
		plan, memory, err := c.plan(ctx, module, n, direction, actor)
		plan.DryRun = dryRun
		if err != nil || dryRun {
			return plan, err
		}
		order, err := c.order(ctx, &memory, plan.Order)
		if errors.Is(err, ErrConflict) && ctx.Err() == nil {
			continue // something was ordered meanwhile: look again
		}
		plan.Order = order
		return plan, err
	}
}

// plan works out an order by hand.
func (c *Controller) plan(ctx context.Context, module string, n int, direction Direction, actor string) (Plan, memory, error) {
	if n < 1 {
		return Plan{}, memory{}, fmt.Errorf("%w: %d devices: give a count of at least 1", ErrRefused, n)
	}
	m, err := c.module(ctx, module)
	if err != nil {
		return Plan{}, memory{}, err
	}
	open, err := c.orders(ctx, openPrefix)
	if err != nil {
		return Plan{}, memory{}, err
	}
	memories, err := c.memories(ctx, stateKey(module))
	if err != nil {
		return Plan{}, memory{}, err
	}
	at := now()
	mem := memories[module]
	mem.Module = module
	m = view(at, m, &mem, open)
	stay := m.staying()
	all := append(slices.Clone(stay), m.coming()...)
	d := Decision{Module: module, At: at, Have: len(all), Capacity: m.capacity(all),
		Reason: Reason{Code: CodeByHand, Actor: actor, Numbers: []Number{{"asked", float64(n)}, {"have", float64(len(all))}}}}
	o := Order{Module: module, Direction: direction, Reason: d.Reason, Actor: actor, Created: at}
	switch direction {
	case Out:
		if m.Max > 0 && d.Have+n > m.Max {
			return Plan{}, mem, fmt.Errorf("%w: %d more than %d devices is over the module's Max %d", ErrRefused, n, d.Have, m.Max)
		}
		idle, err := c.cfg.Devices.Idle(ctx)
		if err != nil {
			return Plan{}, mem, fmt.Errorf("scale: list idle devices: %w", err)
		}
		p := Place(math.Inf(1), free(idle, open), m.Capacity, m.prefs(), n)
		if len(p.Picked) < n {
			return Plan{}, mem, fmt.Errorf("%w: %d asked, %d fit of %d idle", ErrNoDevices, n, len(p.Picked), len(idle))
		}
		o.Devices = devices(p.Picked)
		d.Delta = n
	case In:
		o.Devices = Leave(0, m.Min-len(m.coming()), n, stay, m.Capacity, m.prefs())
		if len(o.Devices) < n {
			return Plan{}, mem, fmt.Errorf("%w: %d fewer than %d devices is below the module's Min %d", ErrRefused, n, d.Have, m.Min)
		}
		d.Delta = -n
	}
	d.Want = d.Have + d.Delta
	o.Count = len(o.Devices)
	return Plan{Decision: d, Order: o}, mem, nil
}

// module finds one module.
func (c *Controller) module(ctx context.Context, name string) (Module, error) {
	all, err := c.cfg.Modules.Modules(ctx)
	if err != nil {
		return Module{}, fmt.Errorf("scale: list modules: %w", err)
	}
	for _, m := range all {
		if m.Name == name {
			return m.filled(), m.filled().faults()
		}
	}
	return Module{}, fmt.Errorf("%w: %q", ErrNotFound, name)
}

// devices are picked candidates as they will be devices of the module.
func devices(picked []Candidate) []Device {
	out := make([]Device, len(picked))
	for i, c := range picked {
		out[i] = Device{Name: c.Name, Site: c.Site, City: c.City, Type: c.Type}
	}
	return out
}

// free are the candidates that no open order has.
func free(idle []Candidate, open []saved) []Candidate {
	taken := make(map[string]bool)
	for _, o := range open {
		if o.Direction == Out && o.State != Done {
			for _, d := range o.Devices {
				taken[d.Name] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(idle), func(c Candidate) bool { return taken[c.Name] })
}
