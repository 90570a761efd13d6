package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// flows serves FlowService.
type flows struct{ *API }

func (f flows) engine() (*flow.Engine, error) {
	if f.config.Flow == nil {
		return nil, fmt.Errorf("%w: flow", ErrAbsent)
	}
	return f.config.Flow, nil
}

func (f flows) Save(ctx context.Context, q *connect.Request[pb.SaveFlowRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		definition, fresh, err := engine.RehearseSave(ctx, q.Msg.Document)
		if fresh {
			err = noted(rehearsal, fmt.Sprintf("flow/%s/%d", definition.Name, definition.Version), definition)
		}
		return nil, rehearsedOr(err)
	}
	saved, err := engine.Save(ctx, q.Msg.Document)
	if err != nil {
		return nil, err
	}
	return document(saved, f.audit(ctx, c, "flow.save", "flow/"+saved.Name, saved.Digest))
}

func (f flows) Lint(ctx context.Context, q *connect.Request[pb.LintFlowRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	faults, err := engine.Lint(ctx, q.Msg.Document)
	return listing(faults, "", err)
}

func (f flows) Plan(ctx context.Context, q *connect.Request[pb.PlanFlowRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	params, err := flowParams(q.Msg.Params)
	if err != nil {
		return nil, err
	}
	plan, err := engine.Plan(ctx, q.Msg.Flow, params)
	return document(plan, err)
}

func (f flows) Definition(ctx context.Context, q *connect.Request[pb.DefinitionRequest]) (*connect.Response[pb.DefinitionResponse], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	d, err := engine.Definition(ctx, q.Msg.Flow, int(q.Msg.Version))
	if err != nil {
		return nil, err
	}
	content, err := json.Marshal(d)
	return connect.NewResponse(&pb.DefinitionResponse{Json: content, Document: d.Source}), err
}

func (f flows) Definitions(ctx context.Context, _ *connect.Request[pb.DefinitionsRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	all, err := engine.Definitions(ctx)
	return listing(all, "", err)
}

// flowParams reads the parameters of a start.
func flowParams(content []byte) (map[string]any, error) {
	params := map[string]any{}
	if len(content) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(content))
		decoder.UseNumber() // 9007199254740993 stays what it is
		if err := decoder.Decode(&params); err != nil {
			return nil, invalid("params", err, "give a JSON object")
		}
	}
	read, _ := numbers(params).(map[string]any)
	return read, nil
}

func (f flows) Start(ctx context.Context, q *connect.Request[pb.StartFlowRequest]) (*connect.Response[pb.StartFlowResponse], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	params, err := flowParams(q.Msg.Params)
	if err != nil {
		return nil, err
	}
	exempt, err := exemption(q.Msg, c)
	if err != nil {
		return nil, err
	}
	options := append(startedBy(ctx, c), flow.Exempt(exempt))
	if c.Key != "" {
		options = append(options, flow.Key(c.Key))
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		begun, err := engine.RehearseStart(ctx, q.Msg.Flow, params, options...)
		if err == nil && begun.Running == "" {
			err = noted(rehearsal, "execution", begun)
		}
		return nil, rehearsedOr(err)
	}
	id, err := engine.Start(ctx, q.Msg.Flow, params, options...)
	if err != nil {
		return nil, err
	}
	c.Execution = id
	action := "flow.start"
	if exempt != "" {
		action = "flow.start.exempt"
	}
	if err := f.audit(ctx, c, action, "execution/"+id, q.Msg.Flow); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StartFlowResponse{Id: id}), nil
}

// numbers turns the numbers of a document into those of Go: whole ones stay whole.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		n, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return n
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	}
	return v
}

func (f flows) Get(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	return document(engine.Get(ctx, q.Msg.Id))
}

func (f flows) List(ctx context.Context, q *connect.Request[pb.ListExecutionsRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	n, err := limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	filter := flow.Filter{Flow: q.Msg.Flow, Open: q.Msg.Open, Limit: n, After: q.Msg.Page.GetAfter()}
	for _, state := range q.Msg.States {
		filter.States = append(filter.States, flow.State(state))
	}
	return listing(engine.List(ctx, filter))
}

func (f flows) Watch(ctx context.Context, q *connect.Request[pb.ExecutionRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	for event, err := range engine.Watch(ctx, q.Msg.Id) {
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("control: encode an event: %w", err)
		}
		if err := stream.Send(&pb.JSON{Json: encoded}); err != nil {
			return err
		}
	}
	return nil
}

type steer func(ctx context.Context, id, actor, reason string) error

func (f flows) steer(ctx context.Context, q *pb.ExecutionRequest, name string, pick func(*flow.Engine) steer) (*connect.Response[pb.Done], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := f.cause(ctx, q.Cause)
	if err != nil {
		return nil, err
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		events, err := engine.RehearseOrder(ctx, q.Id, name, flow.Intervention{Actor: c.Actor, Reason: c.Reason})
		for _, event := range events {
			err = errors.Join(err, noted(rehearsal, "execution/"+q.Id, event))
		}
		return nil, rehearsedOr(err)
	}
	if err := pick(engine)(ctx, q.Id, c.Actor, c.Reason); err != nil {
		return nil, err
	}
	c.Execution = q.Id
	return done(f.audit(ctx, c, "flow."+name, "execution/"+q.Id, nil))
}

func (f flows) Cancel(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.steer(ctx, q.Msg, "cancel", func(e *flow.Engine) steer { return e.Cancel })
}

func (f flows) Retry(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.steer(ctx, q.Msg, "retry", func(e *flow.Engine) steer { return e.Retry })
}

func (f flows) Pause(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.steer(ctx, q.Msg, "pause", func(e *flow.Engine) steer { return e.Pause })
}

func (f flows) Resume(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.Done], error) {
	return f.steer(ctx, q.Msg, "resume", func(e *flow.Engine) steer { return e.Resume })
}

func (f flows) Intervene(ctx context.Context, q *connect.Request[pb.InterveneRequest]) (*connect.Response[pb.Done], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	m := q.Msg
	what := flow.Intervention{Step: m.Step, Item: int(m.Item), Input: m.Input, Output: m.Output, Done: m.Done, Actor: c.Actor, Reason: c.Reason}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		events, err := engine.RehearseOrder(ctx, m.Id, m.Verb, what)
		for _, event := range events {
			err = errors.Join(err, noted(rehearsal, "execution/"+m.Id, event))
		}
		return nil, rehearsedOr(err)
	}
	do := map[string]func(context.Context, string, flow.Intervention) error{
		flow.OrderSkip: engine.Skip, flow.OrderFail: engine.Fail, flow.OrderRetryStep: engine.RetryStep, flow.OrderBack: engine.Back, flow.OrderSettle: engine.Settle,
	}[m.Verb]
	if do == nil {
		return nil, fmt.Errorf("%w: verb %q is unknown; want skip, fail, retry-step, back or settle", flow.ErrInvalid, m.Verb)
	}
	if err := do(ctx, m.Id, what); err != nil {
		return nil, err
	}
	c.Execution = m.Id
	return done(f.audit(ctx, c, "flow."+m.Verb, "execution/"+m.Id+"/"+m.Step, nil))
}

func (f flows) Tools(context.Context, *connect.Request[pb.ToolsRequest]) (*connect.Response[pb.Listing], error) {
	if f.config.Tools == nil {
		return nil, fmt.Errorf("%w: tools", ErrAbsent)
	}
	return listing(f.config.Tools.Manifests(), "", nil)
}
