package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// findings serves DriftService.
type findings struct{ *API }

func (f findings) ledger() (*drift.Ledger, error) {
	if f.config.Drift == nil {
		return nil, fmt.Errorf("%w: drift", ErrAbsent)
	}
	return f.config.Drift, nil
}

func (f findings) List(ctx context.Context, q *connect.Request[pb.ListFindingsRequest]) (*connect.Response[pb.Listing], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	n, err := rpc.Limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	filter := drift.Filter{Device: q.Msg.Device, Module: q.Msg.Module, Kind: drift.Kind(q.Msg.Kind), Limit: n, After: q.Msg.Page.GetAfter()}
	if kind := filter.Kind; kind != "" && !slices.Contains(drift.Kinds(), kind) {
		return nil, rpc.Invalid("kind", kind, fmt.Sprintf("give one of %v", drift.Kinds()))
	}
	for _, state := range q.Msg.States {
		if !slices.Contains(statesOfFindings, drift.Status(state)) {
			return nil, rpc.Invalid("states", state, fmt.Sprintf("give some of %v", statesOfFindings))
		}
		filter.Status = append(filter.Status, drift.Status(state))
	}
	return rpc.Listing(ledger.List(ctx, filter))
}

// statesOfFindings are those that a finding can be in.
var statesOfFindings = []drift.Status{drift.StatusOpen, drift.StatusHeld, drift.StatusRepairing, drift.StatusRepaired, drift.StatusGone, drift.StatusEscalated, drift.StatusIgnored}

func (f findings) Get(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.JSON], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	return rpc.Document(ledger.Get(ctx, q.Msg.Id))
}

func (f findings) verb(ctx context.Context, name string, q *pb.FindingRequest, do func(*drift.Ledger, *pb.Cause) error) (*connect.Response[pb.Done], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	c, err := f.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	if err := do(ledger, c); err != nil {
		return nil, err
	}
	return rpc.Done(f.audit(ctx, c, "drift."+name, "finding/"+q.Id, nil))
}

func (f findings) Repair(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	return f.verb(ctx, "repair", q.Msg, func(l *drift.Ledger, c *pb.Cause) error { return l.Repair(ctx, q.Msg.Id, c.Actor, c.Reason) })
}

func (f findings) Ignore(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	until, err := rpc.Moment("until", q.Msg.Until)
	if err != nil {
		return nil, err
	}
	return f.verb(ctx, "ignore", q.Msg, func(l *drift.Ledger, c *pb.Cause) error {
		if err := rpc.Need("cause.reason", c.Reason, "say why the difference may stay"); err != nil {
			return err
		}
		return l.Ignore(ctx, q.Msg.Id, c.Actor, c.Reason, until)
	})
}

func (f findings) Reopen(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	return f.verb(ctx, "reopen", q.Msg, func(l *drift.Ledger, c *pb.Cause) error { return l.Reopen(ctx, q.Msg.Id, c.Actor, c.Reason) })
}

// Peers compares what is declared for two devices, each with what its agent found to differ. A device that is not in
// service is not compared with anything, so it is inspected first.
func (f findings) Peers(ctx context.Context, q *connect.Request[pb.PeersRequest]) (*connect.Response[pb.Listing], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	fresh, differs, err := f.seen(ctx, ledger, q.Msg.Device)
	if err != nil {
		return nil, err
	}
	if q.Msg.Peer == "" {
		return rpc.Listing(differs, "", nil)
	}
	serving, _, err := f.seen(ctx, ledger, q.Msg.Peer)
	if err != nil {
		return nil, err
	}
	return rpc.Listing(drift.Peers(f.alike(fresh, q.Msg.Device), f.alike(serving, q.Msg.Peer)), "", nil)
}

// alike numbers the ports of a device as its module's manifest does, so that devices that share an address compare.
func (f findings) alike(state drift.State, name string) drift.State {
	device, err := f.config.CMDB.Device(name)
	if err != nil || device.PortOffset == 0 {
		return state
	}
	state.Ports = slices.Clone(state.Ports)
	for i := range state.Ports {
		state.Ports[i].Port -= device.PortOffset
	}
	return state
}

// reportTime is how long an agent may take to report on a new declaration.
const reportTime = 15 * time.Second

// seen is what a device is by its agent's last report: its declaration, with what was found to differ.
func (f findings) seen(ctx context.Context, ledger *drift.Ledger, device string) (drift.State, []drift.Finding, error) {
	d, err := f.config.CMDB.Device(device)
	if err != nil {
		return drift.State{}, nil, err
	}
	if d.State != cmdb.InService {
		if err := f.config.Centers.Inspections.Begin(ctx, device, time.Now().Add(2*reportTime), "control"); err != nil {
			return drift.State{}, nil, err
		}
		defer f.endInspection(ctx, device)
		if err := f.reported(ctx, ledger, device); err != nil {
			return drift.State{}, nil, err
		}
	}
	state, _, err := f.declared(ctx, device)
	if err != nil {
		return state, nil, err
	}
	open, _, err := ledger.List(ctx, drift.Filter{Device: device, Limit: 10 * rpc.MaxPage})
	if err != nil {
		return state, nil, err
	}
	var differs []drift.Finding
	for _, entry := range open {
		found(&state, entry.Finding)
		differs = append(differs, entry.Finding)
	}
	return state, differs, nil
}

// endInspection lets the agent forget the declaration again; if that fails, it ends by itself.
func (f findings) endInspection(ctx context.Context, device string) {
	if err := f.config.Centers.Inspections.End(context.WithoutCancel(ctx), device); err != nil {
		f.logger.Warn("an inspection ends only by its time", "device", device, "error", err)
	}
}

// reported waits until the agent has compared its device with what is declared now.
func (f findings) reported(ctx context.Context, ledger *drift.Ledger, device string) error {
	bound, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, generation, err := f.desired(bound, device)
		if err != nil && bound.Err() == nil {
			return err
		}
		status, err := ledger.Device(bound, device)
		if err == nil && status.Generation == generation {
			return nil
		}
		if err != nil && !errors.Is(err, drift.ErrNotFound) && bound.Err() == nil {
			return err
		}
		select {
		case <-bound.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return rpc.Refusal(connect.CodeUnavailable, "test.no_report", "the agent of %s has not reported within %v; does it run? zhiyun get device %s", device, reportTime, device)
		case <-tick.C:
		}
	}
}

// found takes a difference into a declared state, so that it becomes what was seen.
func found(state *drift.State, finding drift.Finding) {
	switch finding.Kind {
	case drift.KindFile, drift.KindConfig, drift.KindPackage:
		if slices.Contains(finding.Fields, drift.FieldMissing) {
			delete(state.Files, finding.Subject)
			return
		}
		file := state.Files[finding.Subject]
		file.Digest = "found: " + finding.Actual // differs from any real one, and says what it is
		state.Files[finding.Subject] = file
	case drift.KindProcess:
		state.Processes = slices.DeleteFunc(state.Processes, func(p drift.Process) bool { return p.Name == finding.Subject })
	case drift.KindPort:
		state.Ports = slices.DeleteFunc(state.Ports, func(p drift.Port) bool {
			return finding.Port != nil && p.Port == finding.Port.Port && p.Proto == finding.Port.Proto
		})
	}
}
