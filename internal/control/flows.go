package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

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
	c.Execution, c.Reason = id, engine.Strike(ctx, id, c.Reason)
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
	filter, err := executionFilter(q.Msg.Filter)
	if err != nil {
		return nil, err
	}
	if q.Msg.Flow != "" {
		filter.Flow = q.Msg.Flow
	}
	for _, state := range q.Msg.States {
		filter.States = append(filter.States, flow.State(state))
	}
	filter.Open = filter.Open || q.Msg.Open
	filter.Limit, filter.After, filter.Oldest = n, q.Msg.Page.GetAfter(), q.Msg.Oldest
	return listing(engine.List(ctx, filter))
}

// executionFilter reads what executions are selected by; nil selects all.
func executionFilter(q *pb.ExecutionFilter) (flow.Filter, error) {
	since, err := moment("filter.since", q.GetSince())
	if err != nil {
		return flow.Filter{}, err
	}
	until, err := moment("filter.until", q.GetUntil())
	if err != nil {
		return flow.Filter{}, err
	}
	f := flow.Filter{
		Flow: q.GetFlow(), Version: int(q.GetVersion()), Open: q.GetOpen(), Step: q.GetStep(), Actor: q.GetActor(), Key: q.GetKey(), Parent: q.GetParent(),
		Params: q.GetParams(), Device: q.GetDevice(), Text: q.GetText(), Since: since, Until: until,
	}
	for _, state := range q.GetStates() {
		if !slices.Contains(states, flow.State(state)) {
			return flow.Filter{}, invalid("filter.states", state, fmt.Sprintf("give some of %v", states))
		}
		f.States = append(f.States, flow.State(state))
	}
	for _, wake := range q.GetWakes() {
		f.Wakes = append(f.Wakes, flow.WakeKind(wake))
	}
	return f, nil
}

// states are those that an execution can be in.
var states = []flow.State{flow.Running, flow.Compensating, flow.Stuck, flow.Done, flow.Failed, flow.Cancelled}

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

func (f flows) Tools(context.Context, *connect.Request[pb.ToolsRequest]) (*connect.Response[pb.Listing], error) {
	if f.config.Tools == nil {
		return nil, fmt.Errorf("%w: tools", ErrAbsent)
	}
	return listing(f.config.Tools.Manifests(), "", nil)
}
