package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/backoff"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// declaration follows what the server says the device should be. It is a drift.Desired and a drift.Reporter.
type declaration struct {
	client  controlpbconnect.AgentServiceClient
	device  string
	logger  *slog.Logger
	changed chan struct{}

	mu         sync.Mutex
	state      drift.State // guarded by mu
	generation string      // guarded by mu; empty: nothing was heard yet
}

var errUnheard = errors.New("agent: the server has not yet said what this device should be")

// Desired implements drift.Desired.
func (d *declaration) Desired(context.Context) (drift.State, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.generation == "" {
		return drift.State{}, "", errUnheard
	}
	return d.state, d.generation, nil
}

// Changed implements drift.Desired.
func (d *declaration) Changed() <-chan struct{} { return d.changed }

// run keeps a stream to the server, and takes it up again a second after it was lost; later and later while the server turns
// this device away.
func (d *declaration) run(ctx context.Context) error {
	last, lost := "", backoff.New(backoff.Config{First: time.Second, Most: time.Second, Jitter: 0.1})
	turnedAway := backoff.New(backoff.Config{First: time.Second, Most: time.Minute, Jitter: 0.3})
	for ctx.Err() == nil {
		err := d.follow(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			d.logger.Warn("what this device should be is not followed; trying again", "error", err)
		}
		switch connect.CodeOf(err) {
		case connect.CodeUnauthenticated, connect.CodePermissionDenied:
			_ = turnedAway.Wait(ctx) // ends with ctx, which is looked at above
		default:
			turnedAway.Reset()
			_ = lost.Wait(ctx)
		}
	}
	return nil
}

func (d *declaration) follow(ctx context.Context) error {
	d.mu.Lock()
	have := d.generation
	d.mu.Unlock()
	stream, err := d.client.Desired(ctx, connect.NewRequest(&controlpb.DesiredRequest{Device: d.device, Generation: have}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		message := stream.Msg()
		var state drift.State
		if err := json.Unmarshal(message.State, &state); err != nil {
			return fmt.Errorf("agent: the server's declaration: %w", err)
		}
		d.mu.Lock()
		d.state, d.generation = state, message.Generation
		d.mu.Unlock()
		select {
		case d.changed <- struct{}{}:
		default:
		}
	}
	return stream.Err()
}

// Report implements drift.Reporter.
func (d *declaration) Report(ctx context.Context, report drift.Report) error {
	content, err := json.Marshal(report)
	if err != nil {
		return err
	}
	_, err = d.client.Report(ctx, connect.NewRequest(&controlpb.JSON{Json: content}))
	return err
}

// repairs brings back what differs, from the same blobs that were deployed and by the same writing.
type repairs struct {
	env        device.Env
	supervisor *supervise.Supervisor
}

// Repair implements drift.Repairer.
func (r *repairs) Repair(ctx context.Context, f drift.Finding) error {
	switch {
	case f.File != nil && f.File.Type == drift.Regular && f.File.Digest != "":
		in := device.RepairIn{Path: f.Subject, Digest: f.File.Digest, Package: f.File.Source}
		if f.File.Mode != 0 {
			in.Mode = "0" + strconv.FormatUint(uint64(f.File.Mode), 8)
		}
		_, err := device.Repair(ctx, r.env, in)
		return err
	case f.File != nil && f.File.Type == drift.Absent:
		_, err := device.Repair(ctx, r.env, device.RepairIn{Path: f.Subject, Remove: true})
		return err
	case f.File != nil && f.File.Link != "":
		_, err := device.Repair(ctx, r.env, device.RepairIn{Path: f.Subject, Link: f.File.Link})
		return err
	case f.Process != nil && slices.Contains(f.Fields, drift.FieldStopped):
		return r.supervisor.Continue(ctx, f.Process.Name)
	case f.Process != nil:
		return r.supervisor.Kick(ctx, f.Process.Name)
	}
	return fmt.Errorf("%w: %s", drift.ErrCannotRepair, f.Kind)
}

// named tells the supervisor's names of the processes that it runs.
func named(supervisor *supervise.Supervisor) func(context.Context) (map[int]string, error) {
	return func(context.Context) (map[int]string, error) {
		names := make(map[int]string)
		for _, process := range supervisor.List() {
			if process.PID != 0 {
				names[process.PID] = process.Name
			}
		}
		return names, nil
	}
}
