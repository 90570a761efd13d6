package control

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
			err = f.notedSave(ctx, rehearsal, definition)
		}
		return nil, rehearsedOr(err)
	}
	saved, err := engine.Save(ctx, q.Msg.Document)
	if err != nil {
		return nil, err
	}
	return document(saved, f.audit(ctx, c, "flow.save", "flow/"+saved.Name, saved.Digest))
}

// notedSave adds to a rehearsal what a save would keep, beside the version that is the latest now.
func (f flows) notedSave(ctx context.Context, r *store.Rehearsal, next flow.Definition) error {
	object := fmt.Sprintf("flow/%s/%d", next.Name, next.Version)
	last, err := f.config.Flow.Definition(ctx, next.Name, 0)
	switch {
	case errors.Is(err, flow.ErrNotFound):
		return noted(r, object, next)
	case err != nil:
		return err
	}
	return notedBoth(r, object, last, next)
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
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return nil, err
	}
	return document(engine.Get(ctx, id))
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
	filter, err := f.filter(ctx, q.Msg.Filter)
	if err != nil {
		return nil, err
	}
	if q.Msg.Flow != "" {
		filter.Flow = q.Msg.Flow
	}
	for _, state := range q.Msg.States { // of older clients
		if !slices.Contains(states, flow.State(state)) {
			return nil, invalid("states", state, fmt.Sprintf("give some of %v", states))
		}
		filter.States = append(filter.States, flow.State(state))
	}
	filter.Open = filter.Open || q.Msg.Open
	filter.Limit, filter.After, filter.Oldest = n, q.Msg.Page.GetAfter(), q.Msg.Oldest
	return listing(engine.List(ctx, filter))
}

// filter reads what executions are selected by; nil selects all.
func (f flows) filter(ctx context.Context, q *pb.ExecutionFilter) (flow.Filter, error) {
	since, err := moment("filter.since", q.GetSince())
	if err != nil {
		return flow.Filter{}, err
	}
	until, err := moment("filter.until", q.GetUntil())
	if err != nil {
		return flow.Filter{}, err
	}
	parent, err := f.execution(ctx, q.GetParent())
	if err != nil {
		return flow.Filter{}, err
	}
	if q.GetVersion() < 0 {
		return flow.Filter{}, invalid("filter.version", q.GetVersion(), "give a number from 1, or 0 for every version")
	}
	out := flow.Filter{
		Flow: q.GetFlow(), Version: int(q.GetVersion()), Open: q.GetOpen(), Step: q.GetStep(), Actor: q.GetActor(), Key: q.GetKey(), Parent: parent,
		Params: q.GetParams(), Device: q.GetDevice(), Text: q.GetText(), Since: since, Until: until,
	}
	for _, state := range q.GetStates() {
		if !slices.Contains(states, flow.State(state)) {
			return flow.Filter{}, invalid("filter.states", state, fmt.Sprintf("give some of %v", states))
		}
		out.States = append(out.States, flow.State(state))
	}
	for _, wake := range q.GetWakes() {
		if !slices.Contains(wakes, flow.WakeKind(wake)) {
			return flow.Filter{}, invalid("filter.wakes", wake, fmt.Sprintf("give some of %v", wakes))
		}
		out.Wakes = append(out.Wakes, flow.WakeKind(wake))
	}
	return out, nil
}

// states are those that an execution can be in.
var states = []flow.State{flow.Running, flow.Compensating, flow.Stuck, flow.Done, flow.Failed, flow.Cancelled}

// wakes are what can move one on.
var wakes = []flow.WakeKind{flow.WakePerson, flow.WakeSignal, flow.WakeTimer, flow.WakeLease, flow.WakeRunnable}

func (f flows) Watch(ctx context.Context, q *connect.Request[pb.ExecutionRequest], stream *connect.ServerStream[pb.JSON]) error {
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

func (f flows) Tools(context.Context, *connect.Request[pb.ToolsRequest]) (*connect.Response[pb.Listing], error) {
	if f.config.Tools == nil {
		return nil, fmt.Errorf("%w: tools", ErrAbsent)
	}
	var devices map[string]int
	if f.config.ToolDevices != nil {
		devices = f.config.ToolDevices()
	}
	pushed := map[string]bool{}
	if f.config.Shelf != nil {
		versions, err := f.config.Shelf.List("")
		if err != nil {
			return nil, err
		}
		for _, one := range versions {
			pushed[one.Manifest.Name] = true
		}
	}
	all := f.config.Tools.Manifests()
	out := make([]KnownTool, len(all))
	for i, m := range all {
		out[i] = KnownTool{m, ToolStanding{pushed[m.Name], devices[m.Name]}}
	}
	return listing(out, "", nil)
}

// KnownTool is what FlowService.Tools tells of a tool: the document of its manifest, with two fields more.
type KnownTool struct {
	Manifest flow.Manifest
	Standing ToolStanding
}

// ToolStanding is what is known of a tool beside its manifest.
type ToolStanding struct {
	Pushed  bool `json:"pushed"`
	Devices int  `json:"devices"` // connected ones that have it
}

// MarshalJSON implements json.Marshaler.
func (k KnownTool) MarshalJSON() ([]byte, error) {
	manifest, err := json.Marshal(k.Manifest)
	if err != nil {
		return nil, err
	}
	standing, err := json.Marshal(k.Standing)
	if err != nil {
		return nil, err
	}
	return slices.Concat(manifest[:len(manifest)-1], []byte(","), standing[1:]), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *KnownTool) UnmarshalJSON(data []byte) error {
	return errors.Join(json.Unmarshal(data, &k.Manifest), json.Unmarshal(data, &k.Standing))
}

// Check verifies the store.
func (f flows) Check(ctx context.Context, q *connect.Request[pb.CheckFlowsRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	return document(engine.Check(ctx, flow.Filter{Open: q.Msg.Open}))
}
