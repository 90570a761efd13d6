package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// ErrPlacement says that a device's agent spoke for something that is not on its device.
var ErrPlacement = errors.New("wiring: not placed on this device")

// Placement tells the name service which modules are on which devices, as the CMDB has it: an agent gets routes,
// reports and registers for those, and for nothing else. It is an l5/server.Grants that also fires when a device gets or
// loses its module.
type Placement struct {
	config PlacementConfig

	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed and replaced at each change
}

// PlacementConfig is what a Placement joins. Both are required.
type PlacementConfig struct {
	CMDB   *cmdb.DB
	Grants interface {
		MayCall(caller, service string) bool
		Changed() <-chan struct{}
	}
	Logger *slog.Logger // default: off
}

// NewPlacement returns a Placement that answers at once, and fires while Run runs.
func NewPlacement(config PlacementConfig) *Placement {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Placement{config: config, changed: make(chan struct{})}
}

// MayCall implements l5/server.Grants.
func (p *Placement) MayCall(caller, service string) bool {
	return p.config.Grants.MayCall(caller, service)
}

// Changed implements l5/server.Grants.
func (p *Placement) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Calls says why the agent of a device may not speak for a caller; nil if it may.
func (p *Placement) Calls(device, caller string) error {
	d, err := p.config.CMDB.Device(device)
	if err != nil {
		return fmt.Errorf("%w: device %s is not in the CMDB; apply it first", ErrPlacement, device)
	}
	if d.Module == caller && d.State != cmdb.Retired {
		return nil
	}
	return fmt.Errorf("%w: device %s is %s, of module %q, and its agent speaks for caller %q", ErrPlacement, device, d.State, d.Module, caller)
}

// Serves says why the agent of a device may not register an instance; nil if it may.
func (p *Placement) Serves(device string, instance l5.Instance) error {
	d, err := p.config.CMDB.Device(device)
	if err != nil {
		return fmt.Errorf("%w: device %s is not in the CMDB; apply it first", ErrPlacement, device)
	}
	if instance.Module != "" && instance.Module != d.Module {
		return fmt.Errorf("%w: device %s is %s, of module %q; an instance of module %q cannot be there", ErrPlacement, device, d.State, d.Module, instance.Module)
	}
	m, err := p.config.CMDB.Module(d.Module)
	if err == nil {
		if _, ok := m.Service(instance.Service); ok {
			return nil
		}
	}
	return fmt.Errorf("%w: device %s is %s, of module %q, which does not serve %s: declare the service in its manifest", ErrPlacement, device, d.State, d.Module, instance.Service)
}

// settle is how long changes are gathered: a fleet that moves is not asked about again for each device.
const settle = 20 * time.Millisecond

// Run fires for changes of grants and of devices until ctx ends; then it returns nil.
func (p *Placement) Run(ctx context.Context) error {
	moved := make(chan struct{}, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() { p.follow(ctx, moved) })
	defer watcher.Wait()
	for {
		granted := p.config.Grants.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-granted:
		case <-moved:
			timer := time.NewTimer(settle)
			select {
			case <-ctx.Done():
			case <-granted:
			case <-timer.C:
			}
			timer.Stop()
		}
		p.mu.Lock()
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// follow rings for each change of a device or module, and again after a watch that broke.
func (p *Placement) follow(ctx context.Context, moved chan<- struct{}) {
	ring := func() {
		select {
		case moved <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		after := p.config.CMDB.Revision()
		ring()
		for event, err := range p.config.CMDB.Watch(ctx, after) {
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, cmdb.ErrResync) { // after that everything is looked at anew, which is all that is wanted
					p.config.Logger.Warn("the placement of modules is not followed; trying again", "error", err)
				}
				break
			}
			for _, change := range event.Objects {
				if change.Kind == cmdb.KindDevice || change.Kind == cmdb.KindModule {
					ring()
					break
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
