package l5

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/lease"
)

// RegisterOption changes what Register registers.
type RegisterOption func(*registerOptions)

type registerOptions struct {
	instance Instance
	settle   time.Duration
}

// WithWeight sets the full weight. Default: DefaultWeight.
func WithWeight(weight int) RegisterOption {
	return func(o *registerOptions) { o.instance.Weight = weight }
}

// WithShare sets the percentage of the full weight that a new instance starts with; one that is registered already
// keeps its share. Default: 100.
func WithShare(percent int) RegisterOption {
	return func(o *registerOptions) { o.instance.Share = percent }
}

// WithDevice names the device the instance is on. Default: the agent's device, if Target is an agent.
func WithDevice(device string) RegisterOption {
	return func(o *registerOptions) { o.instance.Device = device }
}

// WithModule names the module the instance belongs to. Default: Config.Caller.
func WithModule(module string) RegisterOption {
	return func(o *registerOptions) { o.instance.Module = module }
}

// WithLabels sets labels.
func WithLabels(labels map[string]string) RegisterOption {
	return func(o *registerOptions) { o.instance.Labels = labels }
}

// WithSettle sets how long Drain waits for calls that were picked before everybody heard of it. Default: 500 ms.
func WithSettle(d time.Duration) RegisterOption { return func(o *registerOptions) { o.settle = d } }

// Registration is an instance that this process has registered. It lasts while Client.Run does.
//
//	         Drain: drain, settle, remove              Run ends without Drain
//	up --------------------------------> gone     up ------------------------> suspect --grace--> gone
type Registration struct {
	client   *Client
	instance Instance
	settle   time.Duration
}

// Register puts this process's addr under service and returns when callers' next push holds it. The client's stream
// is the lease: it is registered again after each reconnect, and goes away some time after the process has. If ctx
// ends before the acknowledgement, the registration is withdrawn. An error that matches ErrRefused will not change.
func (c *Client) Register(ctx context.Context, service, addr string, options ...RegisterOption) (*Registration, error) {
	o := registerOptions{instance: Instance{Service: service, Addr: addr, Module: c.config.Caller, Share: 100}, settle: 500 * time.Millisecond}
	for _, option := range options {
		option(&o)
	}
	if err := o.instance.Check(); err != nil {
		return nil, err
	}
	err := c.keeper.Put(ctx, o.instance.Proto())
	if errors.Is(err, lease.ErrRefused) {
		return nil, fmt.Errorf("register %s under %q: %w: %w", addr, service, ErrRefused, err)
	}
	if err != nil {
		c.keeper.Withdraw(service, addr)
		return nil, fmt.Errorf("register %s under %q: %w", addr, service, err)
	}
	return &Registration{client: c, instance: o.instance, settle: o.settle}, nil
}

// Instance returns what was registered.
func (r *Registration) Instance() Instance { return r.instance }

// Drain takes new calls away, waits until those that were picked before are under way, and removes the registration.
// After it returns, finish the calls in flight and exit. If ctx ends before the name service has acknowledged, the
// removal is kept and sent when it can be.
func (r *Registration) Drain(ctx context.Context) error {
	err := r.client.keeper.Drain(ctx, r.instance.Service, r.instance.Addr)
	if err == nil {
		timer := time.NewTimer(r.settle)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if removed := r.client.keeper.Remove(ctx, r.instance.Service, r.instance.Addr); removed != nil {
		err = errors.Join(err, removed)
	}
	if err != nil {
		return fmt.Errorf("drain %s of %q: %w", r.instance.Addr, r.instance.Service, err)
	}
	return nil
}

// lease keeps the register stream open while there is something to keep.
func (c *Client) lease(ctx context.Context) error {
	if err := c.keeper.Wanted(ctx); err != nil {
		return err
	}
	return c.keeper.Run(ctx)
}
