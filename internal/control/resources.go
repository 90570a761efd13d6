package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// resources serves ResourceService.
type resources struct{ *API }

func (r resources) Get(_ context.Context, q *connect.Request[pb.GetResourceRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(r.config.CMDB.Get(cmdb.Kind(q.Msg.Kind), q.Msg.Name))
}

func (r resources) List(_ context.Context, q *connect.Request[pb.ListResourcesRequest]) (*connect.Response[pb.Listing], error) {
	n, err := rpc.Limit(q.Msg.Page)
	if err != nil {
		return nil, err
	}
	revision := r.config.CMDB.Revision()
	objects, next, err := r.config.CMDB.List(cmdb.Kind(q.Msg.Kind), cmdb.ListOptions{Filter: q.Msg.Filter, Limit: n, After: q.Msg.Page.GetAfter()})
	out, err := rpc.Listing(objects, next, err)
	if err == nil {
		out.Msg.Revision = revision
	}
	return out, err
}

// planned makes the plan of a request.
func (r resources) planned(ctx context.Context, documents []*pb.SourceDocument, prune []string) (*cmdb.Plan, error) {
	if len(documents) == 0 {
		return nil, rpc.Invalid("documents", "none", "give at least one document")
	}
	source := make(cmdb.Named, len(documents))
	for i, d := range documents {
		source[i] = cmdb.Document{Name: cmp.Or(d.Name, "document "+strconv.Itoa(i+1)), Data: d.Text}
	}
	var options []cmdb.PlanOption
	if len(prune) > 0 {
		kinds := make([]cmdb.Kind, len(prune))
		for i, kind := range prune {
			if kinds[i] = cmdb.Kind(kind); !slices.Contains(cmdb.Kinds(), kinds[i]) {
				return nil, rpc.Invalid("prune", kind, fmt.Sprintf("give one of %v", cmdb.Kinds()))
			}
		}
		options = append(options, cmdb.Prune(kinds...))
	}
	return r.config.CMDB.Plan(ctx, source, options...)
}

func shown(plan *cmdb.Plan) (*pb.PlanResponse, error) {
	encoded, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("control: encode the plan: %w", err)
	}
	return &pb.PlanResponse{Hash: plan.Hash, Text: plan.String(), Plan: encoded, Empty: plan.Empty()}, nil
}

func (r resources) Plan(ctx context.Context, q *connect.Request[pb.PlanRequest]) (*connect.Response[pb.PlanResponse], error) {
	plan, err := r.planned(ctx, q.Msg.Documents, q.Msg.Prune)
	if err != nil {
		return nil, err
	}
	out, err := shown(plan)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func (r resources) Apply(ctx context.Context, q *connect.Request[pb.ApplyRequest]) (*connect.Response[pb.ApplyResponse], error) {
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	plan, err := r.planned(ctx, q.Msg.Documents, q.Msg.Prune)
	if err != nil {
		return nil, err
	}
	options := because(c)
	if q.Msg.Hash != "" {
		options = append(options, cmdb.Expect(q.Msg.Hash))
	}
	revision, err := r.config.CMDB.Apply(ctx, plan, options...)
	if err != nil {
		return nil, err
	}
	out, err := shown(plan)
	if err != nil {
		return nil, err
	}
	if !plan.Empty() {
		detail := struct {
			Plan    string `json:"plan"`
			Changes int    `json:"changes"`
		}{plan.Hash, len(plan.Changes)}
		if err := r.audit(ctx, c, "resource.apply", "cmdb/"+plan.Hash, detail); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&pb.ApplyResponse{Revision: revision, Plan: out}), nil
}

func because(c *pb.Cause) []cmdb.Option {
	return []cmdb.Option{cmdb.By(c.Actor), cmdb.Because(c.Reason), cmdb.During(c.Execution)}
}

func (r resources) Delete(ctx context.Context, q *connect.Request[pb.DeleteResourceRequest]) (*connect.Response[pb.ApplyResponse], error) {
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	revision, err := r.config.CMDB.Delete(ctx, cmdb.Kind(q.Msg.Kind), q.Msg.Name, because(c)...)
	if err != nil {
		return nil, err
	}
	if err := r.audit(ctx, c, "resource.delete", q.Msg.Kind+"/"+q.Msg.Name, nil); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ApplyResponse{Revision: revision}), nil
}

func (r resources) History(ctx context.Context, q *connect.Request[pb.HistoryRequest]) (*connect.Response[pb.Listing], error) {
	changes, err := r.config.CMDB.History(ctx, cmdb.Kind(q.Msg.Kind), q.Msg.Name)
	return rpc.Listing(changes, "", err)
}
