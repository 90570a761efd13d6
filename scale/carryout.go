package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// carryOut launches what is planned and asks how far the rest has come.
func (c *Controller) carryOut(ctx context.Context, open []saved) error {
	var errs []error
	for _, o := range open {
		if o.State == Done {
			continue
		}
		if err := c.further(ctx, o); err != nil && !errors.Is(err, ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// further moves one order on.
func (c *Controller) further(ctx context.Context, o saved) error {
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	next := o.Order
	if o.State == Planned {
		id, err := c.cfg.Launcher.Launch(call, o.Order)
		switch {
		case errors.Is(err, ErrRejected):
			next.State, next.Error = Failed, err.Error()
			return c.end(ctx, o, next)
		case err != nil:
			return fmt.Errorf("scale: launch order %q: %w; it is launched again, under the same key", o.Key, err)
		}
		next.State, next.ID = Underway, id
		op, err := put(openKey(o.Key), next)
		if err != nil {
			return err
		}
		if _, err = c.cfg.Store.Commit(ctx, op.At(o.revision)); err != nil {
			return fmt.Errorf("scale: note launch of order %q: %w", o.Key, err)
		}
		c.metrics.orders.WithLabelValues(string(o.Direction), string(next.State)).Inc()
		c.tell(Event{Module: o.Module, Kind: Launched, Reason: o.Reason, Order: &next})
		return nil
	}
	state, err := c.cfg.Launcher.State(call, o.ID)
	if err != nil {
		return fmt.Errorf("scale: ask how far order %q has come: %w", o.Key, err)
	}
	if state != Done && state != Failed {
		return nil
	}
	next.State = state
	return c.end(ctx, o, next)
}

// end notes that an order is over. A failed one is filed at once, one that is done when its devices show.
func (c *Controller) end(ctx context.Context, o saved, next Order) error {
	next.Ended = now()
	key := openKey(o.Key)
	var ops []Op
	if next.State == Failed {
		key = pastKey(o.Key)
		ops = append(ops, store.Delete(openKey(o.Key)).At(o.revision))
	}
	op, err := put(key, next)
	if err != nil {
		return err
	}
	if next.State == Done {
		op = op.At(o.revision)
	}
	err = c.edit(ctx, o.Module, func(m *memory) []Op {
		if next.State == Failed {
			m.Fails++
			m.LastFail = next.Ended
		} else {
			m.Fails = 0
		}
		return append(slices.Clone(ops), op)
	})
	if err != nil {
		return err
	}
	c.metrics.orders.WithLabelValues(string(o.Direction), string(next.State)).Inc()
	c.tell(Event{Module: o.Module, Kind: Ended, Reason: o.Reason, Order: &next})
	return nil
}

// file moves orders that are done out of the way once their devices show as serving, or as gone, or Grace is over.
func (c *Controller) file(ctx context.Context, open []saved, modules []Module) error {
	serving := make(map[string]bool)
	for _, m := range modules {
		for _, d := range m.Serving {
			serving[m.Name+"\x00"+d.Name] = true
		}
	}
	for _, o := range open {
		if o.State != Done {
			continue
		}
		shows := !slices.ContainsFunc(o.Devices, func(d Device) bool {
			return serving[o.Module+"\x00"+d.Name] != (o.Direction == Out)
		})
		if !shows && now().Sub(o.Ended) < c.cfg.Grace {
			continue
		}
		op, err := put(pastKey(o.Key), o.Order)
		if err != nil {
			return err
		}
		if _, err := c.cfg.Store.Commit(ctx, store.Delete(openKey(o.Key)).At(o.revision), op); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("scale: file order %q: %w", o.Key, err)
		}
	}
	return nil
}
