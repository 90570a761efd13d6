package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// agents serves AgentService.
type agents struct{ *API }

// own refuses an agent that asks for another's device.
func own(ctx context.Context, device string) error {
	if device == "" {
		return rpc.Invalid("device", device, "name the device")
	}
	if id, ok := auth.From(ctx); ok && id.Role == auth.Agent && id.Name != device {
		return fmt.Errorf("%w: %q asked for %q", ErrWhose, id.Name, device)
	}
	return nil
}

func (a agents) Device(ctx context.Context, q *connect.Request[pb.DesiredRequest]) (*connect.Response[pb.JSON], error) {
	if err := own(ctx, q.Msg.Device); err != nil {
		return nil, err
	}
	return rpc.Document(a.config.CMDB.Device(q.Msg.Device))
}

// Report takes a report into the ledger.
func (a agents) Report(ctx context.Context, q *connect.Request[pb.JSON]) (*connect.Response[pb.Done], error) {
	if a.config.Drift == nil {
		return nil, fmt.Errorf("%w: drift", ErrAbsent)
	}
	var report drift.Report
	if err := json.Unmarshal(q.Msg.Json, &report); err != nil {
		return nil, rpc.Invalid("report", err, "give a JSON object as package drift's Report")
	}
	if err := own(ctx, report.Device); err != nil {
		return nil, err
	}
	return rpc.Done(a.config.Drift.Report(ctx, report))
}

// Desired sends the declared state, and again whenever it differs from what was sent last.
func (a agents) Desired(ctx context.Context, q *connect.Request[pb.DesiredRequest], stream *connect.ServerStream[pb.DesiredState]) error {
	if err := own(ctx, q.Msg.Device); err != nil {
		return err
	}
	bell, cancel := a.news.subscribe(q.Msg.Device)
	defer cancel()
	has, failing := q.Msg.Generation, false
	for {
		state, generation, err := a.desired(ctx, q.Msg.Device)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			// The agent keeps what it has: an unreadable template must not look like an empty declaration.
			if !failing {
				a.logger.Warn("a declared state cannot be computed; its agent keeps the last one", "device", q.Msg.Device, "error", err)
			}
			failing = true
		case generation != has:
			encoded, err := json.Marshal(state)
			if err != nil {
				return fmt.Errorf("control: encode the declared state: %w", err)
			}
			if err := stream.Send(&pb.DesiredState{Generation: generation, State: encoded}); err != nil {
				return err
			}
			has, failing = generation, false
		default:
			failing = false
		}
		if err := a.await(ctx, bell, failing); err != nil {
			return err
		}
	}
}

// retryDesired is when a state that could not be computed is tried again without a change.
const retryDesired = 5 * time.Second

// await waits for a signal, and then until changes have settled: an apply of many objects is one new state.
func (a *API) await(ctx context.Context, bell <-chan struct{}, failing bool) error {
	var again <-chan time.Time
	if failing {
		timer := time.NewTimer(retryDesired)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-again:
		return nil
	case <-bell:
	}
	settle := time.NewTimer(a.config.Settle)
	defer settle.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-settle.C:
	}
	select {
	case <-bell: // what rang meanwhile is in the state computed next
	default:
	}
	return nil
}
