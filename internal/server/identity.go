package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// identify lets an agent speak for its own device alone.
func identify(ctx context.Context, _ http.Header, claimed string) (string, error) {
	id, ok := auth.From(ctx)
	if !ok {
		return "", auth.ErrToken
	}
	if id.Role == auth.Agent && claimed != id.Name {
		return "", fmt.Errorf("%w: the agent of %s cannot speak for %s", auth.ErrDenied, id.Name, claimed)
	}
	return claimed, nil
}

// speaksFor is identify for streams that carry no header of their own.
func speaksFor(ctx context.Context, device string) error {
	_, err := identify(ctx, nil, device)
	return err
}

// caller lets an agent ask for routes, and report, for the modules that are placed on its device.
func (h *house) caller(ctx context.Context, _ http.Header, claimed string) (string, error) {
	id, ok := auth.From(ctx)
	if !ok {
		return "", auth.ErrToken
	}
	if id.Role != auth.Agent {
		return claimed, nil // operators and tools may call as whoever they say
	}
	return claimed, h.placement.Calls(id.Name, claimed)
}

// mayServe lets an agent register on its device what the device's module serves.
func (h *house) mayServe(ctx context.Context, _ string, instance l5.Instance) error {
	if id, ok := auth.From(ctx); ok && id.Role == auth.Agent {
		return h.placement.Serves(id.Name, instance)
	}
	return nil // mayChange has asked for the token
}

// mayChange lets an agent change the instances of its own device alone.
func mayChange(ctx context.Context, _ string, instance l5.Instance) error {
	id, ok := auth.From(ctx)
	switch {
	case !ok:
		return auth.ErrToken
	case id.Role != auth.Agent, instance.Device == id.Name, instance.Device == "" && instance.Owner == id.Name:
		return nil
	}
	return fmt.Errorf("%w: the agent of %s cannot change what is on device %q", auth.ErrDenied, id.Name, instance.Device)
}
