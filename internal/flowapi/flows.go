package flowapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func (f *API) engine() (*flow.Engine, error) {
	if f.config.Engine == nil {
		return nil, fmt.Errorf("%w: flow", rpc.ErrAbsent)
	}
	return f.config.Engine, nil
}

func (f *API) Save(ctx context.Context, q *connect.Request[pb.SaveFlowRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if rehearsal := store.RehearsalOf(ctx); rehearsal != nil {
		definition, fresh, err := engine.RehearseSave(ctx, q.Msg.Document)
		if fresh {
			err = f.notedSave(ctx, rehearsal, definition)
		}
		return nil, rpc.RehearsedOr(err)
	}
	saved, err := engine.Save(ctx, q.Msg.Document)
	if err != nil {
		return nil, err
	}
	return rpc.Document(saved, f.config.Audit(ctx, c, "flow.save", "flow/"+saved.Name, saved.Digest))
}

// notedSave adds to a rehearsal what a save would keep, beside the version that is the latest now.
func (f *API) notedSave(ctx context.Context, r *store.Rehearsal, next flow.Definition) error {
	object := fmt.Sprintf("flow/%s/%d", next.Name, next.Version)
	last, err := f.config.Engine.Definition(ctx, next.Name, 0)
	switch {
	case errors.Is(err, flow.ErrNotFound):
		return rpc.Noted(r, object, next)
	case err != nil:
		return err
	}
	return rpc.NotedBoth(r, object, last, next)
}

func (f *API) Lint(ctx context.Context, q *connect.Request[pb.LintFlowRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	faults, err := engine.Lint(ctx, q.Msg.Document)
	return rpc.Listing(faults, "", err)
}

func (f *API) Plan(ctx context.Context, q *connect.Request[pb.PlanFlowRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	params, err := flowParams(q.Msg.Params)
	if err != nil {
		return nil, err
	}
	plan, err := engine.Plan(ctx, q.Msg.Flow, params)
	return rpc.Document(plan, err)
}

func (f *API) Definition(ctx context.Context, q *connect.Request[pb.DefinitionRequest]) (*connect.Response[pb.DefinitionResponse], error) {
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

func (f *API) Definitions(ctx context.Context, _ *connect.Request[pb.DefinitionsRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	all, err := engine.Definitions(ctx)
	return rpc.Listing(all, "", err)
}

// flowParams reads the parameters of a start.
func flowParams(content []byte) (map[string]any, error) {
	params := map[string]any{}
	if len(content) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(content))
		decoder.UseNumber() // 9007199254740993 stays what it is
		if err := decoder.Decode(&params); err != nil {
			return nil, rpc.Invalid("params", err, "give a JSON object")
		}
	}
	read, _ := numbers(params).(map[string]any)
	return read, nil
}

func (f *API) Start(ctx context.Context, q *connect.Request[pb.StartFlowRequest]) (*connect.Response[pb.StartFlowResponse], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
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
			err = rpc.Noted(rehearsal, "execution", begun)
		}
		return nil, rpc.RehearsedOr(err)
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
	if err := f.config.Audit(ctx, c, action, "execution/"+id, q.Msg.Flow); err != nil {
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

func (f *API) Get(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return nil, err
	}
	return rpc.Document(engine.Get(ctx, id))
}

func (f *API) List(ctx context.Context, q *connect.Request[pb.ListExecutionsRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	n, err := rpc.Limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	filter, err := f.filter(ctx, q.Msg.Filter)
	if err != nil {
		return nil, err
	}
	if q.Msg.Flow != "" {
		filter.Flow = q.Msg.Flow
	}
	for _, state := range q.Msg.States { // of older clients
		if !slices.Contains(flow.States(), flow.State(state)) {
			return nil, rpc.Invalid("states", state, fmt.Sprintf("give some of %v", flow.States()))
		}
		filter.States = append(filter.States, flow.State(state))
	}
	filter.Open = filter.Open || q.Msg.Open
	filter.Limit, filter.After, filter.Oldest = n, q.Msg.Page.GetAfter(), q.Msg.Oldest
	return rpc.Listing(engine.List(ctx, filter))
}

// filter reads what executions are selected by; nil selects all.
func (f *API) filter(ctx context.Context, q *pb.ExecutionFilter) (flow.Filter, error) {
	since, err := rpc.Moment("filter.since", q.GetSince())
	if err != nil {
		return flow.Filter{}, err
	}
	until, err := rpc.Moment("filter.until", q.GetUntil())
	if err != nil {
		return flow.Filter{}, err
	}
	parent, err := f.execution(ctx, q.GetParent())
	if err != nil {
		return flow.Filter{}, err
	}
	if q.GetVersion() < 0 {
		return flow.Filter{}, rpc.Invalid("filter.version", q.GetVersion(), "give a number from 1, or 0 for every version")
	}
	out := flow.Filter{
		Flow: q.GetFlow(), Version: int(q.GetVersion()), Open: q.GetOpen(), Step: q.GetStep(), Actor: q.GetActor(), Key: q.GetKey(), Parent: parent,
		Params: q.GetParams(), Device: q.GetDevice(), Text: q.GetText(), Since: since, Until: until,
	}
	for _, state := range q.GetStates() {
		if !slices.Contains(flow.States(), flow.State(state)) {
			return flow.Filter{}, rpc.Invalid("filter.states", state, fmt.Sprintf("give some of %v", flow.States()))
		}
		out.States = append(out.States, flow.State(state))
	}
	for _, wake := range q.GetWakes() {
		if !slices.Contains(wakes, flow.WakeKind(wake)) {
			return flow.Filter{}, rpc.Invalid("filter.wakes", wake, fmt.Sprintf("give some of %v", wakes))
		}
		out.Wakes = append(out.Wakes, flow.WakeKind(wake))
	}
	return out, nil
}

// wakes are what can move an execution on.
var wakes = []flow.WakeKind{flow.WakePerson, flow.WakeSignal, flow.WakeTimer, flow.WakeLease, flow.WakeRunnable}

func (f *API) Watch(ctx context.Context, q *connect.Request[pb.ExecutionRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return err
	}
	for event, err := range engine.Watch(ctx, id) {
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

// Check verifies the store.
func (f *API) Check(ctx context.Context, q *connect.Request[pb.CheckFlowsRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	return rpc.Document(engine.Check(ctx, flow.Filter{Open: q.Msg.Open}))
}

// Locks are the keys that executions hold.
func (f *API) Locks(ctx context.Context, _ *connect.Request[pb.LocksRequest]) (*connect.Response[pb.Listing], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	all, err := engine.Locks(ctx)
	return rpc.Listing(all, "", err)
}

// exemption is why an execution goes on through freezes: nobody takes that for granted.
func exemption(q *pb.StartFlowRequest, c *pb.Cause) (string, error) {
	switch {
	case !q.Exempt:
		return "", nil
	case c.Reason == "":
		return "", rpc.Invalid("cause.reason", "", "say why the execution is to go on through freezes")
	}
	return fmt.Sprintf("%s: %s", c.Actor, c.Reason), nil
}

// startedBy are the options of a start that say who asks.
func startedBy(ctx context.Context, c *pb.Cause) []flow.StartOption {
	return []flow.StartOption{flow.By(c.Actor), flow.As(rpc.Proved(ctx, c)...), flow.Because(c.Reason)}
}

// fullID is how many bytes an execution's ID has.
const fullID = 36

// execution returns the whole ID of an execution.
func (f *API) execution(ctx context.Context, given string) (string, error) {
	if len(given) >= fullID {
		return given, nil
	}
	return rpc.Whole(ctx, "execution", given, func() ([]rpc.Candidate, error) {
		engine, err := f.engine()
		if err != nil {
			return nil, err
		}
		// IDs stand in their order, those that begin so right behind what they begin with.
		page, _, err := engine.List(ctx, flow.Filter{Oldest: true, After: given, Limit: rpc.MostSaid + 1})
		out := make([]rpc.Candidate, len(page))
		for i, x := range page {
			out[i] = rpc.Candidate{ID: x.ID, Text: fmt.Sprintf("%s  %s  started %s", x.Flow, x.State, x.Started.UTC().Format("2006-01-02 15:04:05"))}
		}
		return out, err
	})
}
