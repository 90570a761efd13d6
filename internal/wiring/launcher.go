package wiring

import (
	"context"
	"fmt"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// The flows that carry out orders.
const (
	FlowExpand   = "expand"
	FlowContract = "contract"
)

// Launcher lets scale run its orders as flows. The order's key is the start's, so that an order runs once.
type Launcher struct{ Engine *flow.Engine }

// Launch implements scale.Launcher.
func (l Launcher) Launch(ctx context.Context, order scale.Order) (string, error) {
	name := FlowExpand
	if order.Direction == scale.In {
		name = FlowContract
	}
	devices := make([]any, 0, len(order.Devices))
	for _, device := range order.Names() {
		devices = append(devices, device)
	}
	actor := order.Actor
	if actor == "" {
		actor = "scale"
	}
	params := map[string]any{"module": order.Module, "count": order.Count, "devices": devices}
	return l.Engine.Start(ctx, name, params, flow.Key(order.Key), flow.By(actor), flow.Because(order.Reason.String()))
}

// State implements scale.Launcher. An execution that waits for a person is under way: it still holds its devices.
func (l Launcher) State(ctx context.Context, id string) (scale.Progress, error) {
	execution, err := l.Engine.Get(ctx, id)
	if err != nil {
		return "", fmt.Errorf("state of execution %s: %w", id, err)
	}
	switch execution.State {
	case flow.Done:
		return scale.Done, nil
	case flow.Failed, flow.Cancelled:
		return scale.Failed, nil
	}
	return scale.Underway, nil
}
