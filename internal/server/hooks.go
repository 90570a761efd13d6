package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// openHooks listens for webhooks, if there is an address for that. Nothing but /hooks/ is served there, and who calls proves itself by the signature
// of the call alone: what is asked for at the other doors, outsiders do not have.
func (d *doors) openHooks(config Config, trust *trust) error {
	if config.Hooks == "" {
		return nil
	}
	listener, err := net.Listen("tcp", config.Hooks)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if trust != nil {
		listener = tls.NewListener(listener, trust.listener())
	}
	d.hooks = listener
	return nil
}

// triggering makes the triggers. Every server serves their webhooks; the leader starts their schedules, with a store that refuses writes once its
// term is over.
func (h *house) triggering() (err error) {
	if h.triggers, err = trigger.New(trigger.Config{Store: h.record.store("trigger"), Engine: h.flow, Logger: h.config.Logger, Metrics: h.registry}); err != nil {
		return err
	}
	h.run(h.triggers.Run, h.followFreezes, func(ctx context.Context) error {
		return h.record.lead(ctx, "trigger", h.id, func(ctx context.Context, term *store.Term) error {
			leader, err := trigger.New(trigger.Config{Store: store.Fenced(h.record.store("trigger"), term), Engine: h.flow, Logger: h.config.Logger})
			if err != nil {
				return err
			}
			return leader.Lead(ctx)
		})
	})
	return nil
}

// freeze tells the engine which freezes are in force.
func (h *house) freeze(ctx context.Context) error {
	all, err := h.centers.Freezes.List(ctx)
	if err != nil {
		return fmt.Errorf("server: freezes: %w", err)
	}
	out := make([]flow.Freeze, len(all))
	for i, one := range all {
		out[i] = flow.Freeze{Module: one.Module, Until: one.Until, Actor: one.Actor, Reason: one.Reason, Since: one.At}
	}
	h.flow.SetFreezes(out)
	return nil
}

// runFlows runs the engine, once the freezes are known: none is overlooked at the start.
func (h *house) runFlows(ctx context.Context) error {
	for {
		err := h.freeze(ctx)
		if err == nil {
			return h.flow.Run(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		h.config.Logger.Warn("executions wait until the freezes can be read", "error", err)
		rest(ctx)
	}
}

// rest waits a second.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// followFreezes keeps up with them.
func (h *house) followFreezes(ctx context.Context) error {
	for ctx.Err() == nil {
		for change, err := range h.centers.Watch(ctx) {
			if err == nil && (change.Kind == center.WatchFreeze || change.Kind == center.WatchAll) {
				err = h.freeze(ctx)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				h.config.Logger.Warn("freezes cannot be read, will be tried again", "error", err)
				break
			}
		}
		rest(ctx)
	}
	return nil
}
