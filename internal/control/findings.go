package control

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/drift"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
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
	n, err := limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	filter := drift.Filter{Device: q.Msg.Device, Module: q.Msg.Module, Kind: drift.Kind(q.Msg.Kind), Limit: n, After: q.Msg.Page.GetAfter()}
	for _, state := range q.Msg.States {
		filter.Status = append(filter.Status, drift.Status(state))
	}
	return listing(ledger.List(ctx, filter))
}

func (f findings) Get(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.JSON], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	return document(ledger.Get(ctx, q.Msg.Id))
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
	return done(f.audit(ctx, c, "drift."+name, "finding/"+q.Id, nil))
}

func (f findings) Repair(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	return f.verb(ctx, "repair", q.Msg, func(l *drift.Ledger, c *pb.Cause) error { return l.Repair(ctx, q.Msg.Id, c.Actor, c.Reason) })
}

func (f findings) Ignore(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	until, err := moment("until", q.Msg.Until)
	if err != nil {
		return nil, err
	}
	return f.verb(ctx, "ignore", q.Msg, func(l *drift.Ledger, c *pb.Cause) error {
		if err := need("cause.reason", c.Reason, "say why the difference may stay"); err != nil {
			return err
		}
		return l.Ignore(ctx, q.Msg.Id, c.Actor, c.Reason, until)
	})
}

func (f findings) Reopen(ctx context.Context, q *connect.Request[pb.FindingRequest]) (*connect.Response[pb.Done], error) {
	return f.verb(ctx, "reopen", q.Msg, func(l *drift.Ledger, _ *pb.Cause) error { return l.Reopen(ctx, q.Msg.Id) })
}

// Peers compares what is declared for two devices, less what was found to differ on either: what the new one lacks
// and the one in service has, and the other way round. Both must have reported on what is declared for them now.
func (f findings) Peers(ctx context.Context, q *connect.Request[pb.PeersRequest]) (*connect.Response[pb.Listing], error) {
	ledger, err := f.ledger()
	if err != nil {
		return nil, err
	}
	var sides [2]drift.State
	for i, device := range []string{q.Msg.Device, q.Msg.Peer} {
		state, _, err := f.declared(ctx, device)
		if err != nil {
			return nil, err
		}
		open, _, err := ledger.List(ctx, drift.Filter{Device: device, Limit: 10 * maxPage})
		if err != nil {
			return nil, err
		}
		for _, entry := range open {
			found(&state, entry.Finding)
		}
		sides[i] = state
	}
	return listing(drift.Peers(sides[0], sides[1]), "", nil)
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
