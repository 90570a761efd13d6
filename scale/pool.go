package scale

import (
	"context"
	"fmt"
	"slices"
)

// pool hands out idle devices within one pass; it asks for them only if they are needed.
type pool struct {
	controller *Controller
	open       []saved
	asked      bool
	devices    []Candidate
	err        error
}

func (p *pool) idle(ctx context.Context) ([]Candidate, error) {
	if !p.asked {
		p.asked = true
		call, cancel := context.WithTimeout(ctx, p.controller.cfg.Timeout)
		defer cancel()
		p.devices, p.err = p.controller.cfg.Devices.Idle(call)
		if p.err != nil {
			p.err = fmt.Errorf("scale: list idle devices: %w", p.err)
		}
		p.devices = free(p.devices, p.open)
	}
	return p.devices, p.err
}

func (p *pool) take(o Order) {
	p.devices = slices.DeleteFunc(p.devices, func(c Candidate) bool {
		return slices.ContainsFunc(o.Devices, func(d Device) bool { return d.Name == c.Name })
	})
}
