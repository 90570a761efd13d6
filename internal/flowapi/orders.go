package flowapi

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// changed is what the audit record of an order has beside who and why.
type changed struct {
	Before flow.Standing `json:"before"`
	After  flow.Standing `json:"after"`
	Item   int           `json:"item,omitempty"`
}

// order gives an execution an order, or rehearses it, and records it with where the execution stood before and after.
func (f *API) order(ctx context.Context, id, verb string, what flow.Intervention, why *pb.Cause) (*connect.Response[pb.Done], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := rpc.ReadCause(ctx, why)
	if err != nil {
		return nil, err
	}
	if err := answerer(ctx, verb, c, &what); err != nil {
		return nil, err
	}
	if id, err = f.execution(ctx, id); err != nil {
		return nil, err
	}
	return f.change(ctx, id, verb, what, c, changing{
		rehearse: func() ([]flow.Event, error) { return engine.RehearseOrder(ctx, id, verb, what) },
		do:       func() error { return engine.Order(ctx, id, verb, what) },
	})
}

// answerer completes who gives the order. People answer for themselves when they approve: what was proved counts, not what is claimed, and
// no flow approves of itself.
func answerer(ctx context.Context, verb string, c *pb.Cause, what *flow.Intervention) error {
	if id, proved := auth.From(ctx); proved && (verb == flow.OrderApprove || verb == flow.OrderRefuse) {
		if id.Role != auth.Operator {
			return fmt.Errorf("%w: %s may not %s: people do", auth.ErrDenied, id, verb)
		}
		c.Actor, what.Roles = id.Name, []string{string(id.Role)}
	}
	what.Actor, what.Reason = c.Actor, c.Reason
	return nil
}

// changing is one change of an execution, and its rehearsal.
type changing struct {
	rehearse func() ([]flow.Event, error)
	do       func() error
}

// change changes an execution, or rehearses that, and records where it stood before and after.
func (f *API) change(ctx context.Context, id, verb string, what flow.Intervention, c *pb.Cause, change changing) (*connect.Response[pb.Done], error) {
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		events, err := change.rehearse()
		for _, event := range events {
			err = errors.Join(err, rpc.Noted(rehearsal, "execution/"+id, event))
		}
		return nil, rpc.RehearsedOr(err)
	}
	before, err := f.config.Engine.Standing(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := change.do(); err != nil {
		return nil, err
	}
	after, err := f.config.Engine.Standing(ctx, id)
	if err != nil {
		return nil, err
	}
	return rpc.Done(f.auditOrder(ctx, c, id, verb, what, changed{before, after, what.Item}))
}

func (f *API) auditOrder(ctx context.Context, c *pb.Cause, id, verb string, what flow.Intervention, how changed) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	told := &pb.Cause{Actor: c.Actor, Reason: engine.Strike(ctx, id, c.Reason), Execution: id, Key: c.Key}
	object := "execution/" + id
	if what.Step != "" {
		object += "/" + what.Step
	}
	return f.config.Audit(ctx, told, "flow."+verb, object, how)
}

func (f *API) Cancel(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.order(ctx, q.Msg.Id, flow.OrderCancel, flow.Intervention{}, q.Msg.Cause)
}

func (f *API) Retry(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.order(ctx, q.Msg.Id, flow.OrderRetry, flow.Intervention{}, q.Msg.Cause)
}

func (f *API) Pause(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.order(ctx, q.Msg.Id, flow.OrderPause, flow.Intervention{}, q.Msg.Cause)
}

func (f *API) Resume(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.order(ctx, q.Msg.Id, flow.OrderResume, flow.Intervention{}, q.Msg.Cause)
}

func (f *API) Intervene(ctx context.Context, q *connect.Request[pb.InterveneRequest]) (*connect.Response[pb.Done], error) {
	return f.order(ctx, q.Msg.Id, q.Msg.Verb, intervention(q.Msg), q.Msg.Cause)
}

func intervention(m *pb.InterveneRequest) flow.Intervention {
	return flow.Intervention{Step: m.GetStep(), Item: int(m.GetItem()), Input: m.GetInput(), Output: m.GetOutput(), Done: m.GetDone(), Case: m.GetCase(), Version: int(m.GetVersion())}
}

// Bulk gives an order to every execution that is selected. Each that was changed has its own audit record.
func (f *API) Bulk(ctx context.Context, q *connect.Request[pb.BulkRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
	if err != nil {
		return err
	}
	filter, err := f.filter(ctx, q.Msg.Filter)
	if err != nil {
		return err
	}
	rehearsal := store.RehearsalOf(ctx)
	b := flow.Bulk{Filter: filter, Order: q.Msg.Order.GetVerb(), With: intervention(q.Msg.Order), Max: int(q.Msg.Max), Rehearse: rehearsal != nil}
	if signal := q.Msg.Signal; signal != nil {
		b.Order, b.Signal = "signal", &flow.BulkSignal{Name: signal.Name, Payload: signal.Payload, ID: signal.SignalId}
		b.With.Step = ""
	}
	if err := answerer(ctx, b.Order, c, &b.With); err != nil {
		return err
	}
	for line, err := range engine.Bulk(ctx, b) {
		switch {
		case err != nil:
			return err
		case rehearsal != nil:
			if line.Outcome == flow.BulkDone {
				err = rpc.NotedBoth(rehearsal, "execution/"+line.Execution, line.Before, line.After)
			}
		default:
			if line.Outcome == flow.BulkDone {
				err = f.auditOrder(ctx, c, line.Execution, b.Order, b.With, changed{line.Before, line.After, b.With.Item})
			}
			err = errors.Join(err, rpc.SendLine(stream, line))
		}
		if err != nil {
			return err
		}
	}
	if rehearsal != nil {
		return store.ErrRehearsed
	}
	return nil
}

// Signal hands a payload to an execution. The audit record names the signal, and not what it carries.
func (f *API) Signal(ctx context.Context, q *connect.Request[pb.SignalRequest]) (*connect.Response[pb.Done], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	m := q.Msg
	id, err := f.execution(ctx, m.Id)
	if err != nil {
		return nil, err
	}
	options := []flow.SignalOption{flow.SignalFrom(c.Actor)}
	if m.SignalId != "" {
		options = append(options, flow.SignalID(m.SignalId))
	}
	return f.change(ctx, id, "signal", flow.Intervention{Step: m.Name}, c, changing{
		rehearse: func() ([]flow.Event, error) { return engine.RehearseSignal(ctx, id, m.Name, m.Payload, options...) },
		do:       func() error { return engine.Signal(ctx, id, m.Name, m.Payload, options...) },
	})
}
