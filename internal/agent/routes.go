package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// routes keeps a client per module that calls from this device, so that the agent holds the routes of its callees
// before the module's own processes ask.
type routes struct {
	target string // the agent's own socket

	mu      sync.Mutex
	clients map[string]*l5.Client // guarded by mu; by caller
	start   func(func(context.Context) error)
}

// Warm implements device.Routes.
func (r *routes) Warm(ctx context.Context, caller, service string) error {
	client, err := r.client(caller)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	route, err := client.Route(ctx, service)
	switch {
	case err == nil:
		route.Done(l5.Outcome{Err: context.Canceled}) // no call was made
		return nil
	case errors.Is(err, l5.ErrDenied):
		return &device.Error{Code: "l5.denied", Message: err.Error()}
	case errors.Is(err, l5.ErrNoInstance):
		return &device.Error{Code: "l5.no_instance", Message: err.Error()}
	}
	return &device.Error{Code: "l5.unreachable", Message: fmt.Sprintf("route %s for %s: %v", service, caller, err), Retry: true}
}

// restore holds the routes of the modules that joined as callers before this agent started.
func (r *routes) restore(root string) error {
	joined, err := device.Callers(root)
	if err != nil {
		return fmt.Errorf("agent: which modules call from this device: %w", err)
	}
	for _, caller := range joined {
		if _, err := r.client(caller.Caller); err != nil {
			return err
		}
	}
	return nil
}

func (r *routes) client(caller string) (*l5.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if client := r.clients[caller]; client != nil {
		return client, nil
	}
	client, err := l5.New(l5.Config{Target: r.target, Caller: caller})
	if err != nil {
		return nil, err
	}
	r.clients[caller] = client
	r.start(client.Run)
	return client, nil
}
