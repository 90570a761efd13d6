package flowapi

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Logs sends what attempts wrote to stderr, as it comes if the caller follows.
func (f *API) Logs(ctx context.Context, q *connect.Request[pb.LogsRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	filter := flow.LogFilter{Step: q.Msg.Step, Attempt: int(q.Msg.Attempt), Follow: q.Msg.Follow}
	if q.Msg.Item != nil {
		item := int(*q.Msg.Item)
		filter.Item = &item
	}
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return err
	}
	if filter.Step != "" {
		if err := hasStep(ctx, engine, id, filter.Step); err != nil {
			return err
		}
	}
	for piece, err := range engine.Logs(ctx, id, filter) {
		if err != nil {
			return err
		}
		if err := rpc.SendLine(stream, piece); err != nil {
			return err
		}
	}
	return nil
}

// hasStep tells the step of another flow, or a misspelt one, from one that has written nothing.
func hasStep(ctx context.Context, engine *flow.Engine, id, step string) error {
	x, err := engine.Get(ctx, id)
	if err == nil && !slices.ContainsFunc(x.Steps, func(s flow.StepStatus) bool { return s.Name == step }) {
		err = fmt.Errorf("%w: flow %s, version %d, has no step %q", flow.ErrNotFound, x.Flow, x.Version, step)
	}
	return err
}

func (f *API) Timing(ctx context.Context, q *connect.Request[pb.ExecutionRequest]) (*connect.Response[pb.JSON], error) {
	engine, err := f.engine()
	if err != nil {
		return nil, err
	}
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return nil, err
	}
	return rpc.Document(engine.Timing(ctx, id))
}

// Export sends the document in chunks: one of a long history is larger than a message may be.
func (f *API) Export(ctx context.Context, q *connect.Request[pb.ExecutionRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	id, err := f.execution(ctx, q.Msg.Id)
	if err != nil {
		return err
	}
	export, err := engine.Export(ctx, id)
	if err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(export, "", " ")
	if err != nil {
		return fmt.Errorf("control: encode an export: %w", err)
	}
	for len(encoded) > 0 {
		n := min(len(encoded), rpc.ChunkSize)
		if err := stream.Send(&pb.JSON{Json: encoded[:n]}); err != nil {
			return err
		}
		encoded = encoded[n:]
	}
	return nil
}

// Prune removes what ended longer ago than it is kept. One audit record tells how many of which flow.
func (f *API) Prune(ctx context.Context, q *connect.Request[pb.PruneRequest], stream *connect.ServerStream[pb.JSON]) error {
	engine, err := f.engine()
	if err != nil {
		return err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
	if err != nil {
		return err
	}
	keep, err := rpc.Duration("keep", q.Msg.Keep, 0)
	if err != nil {
		return err
	}
	rehearsal := store.RehearsalOf(ctx)
	removed := map[string]int{}
	var failed error
	for pruned, err := range engine.Prune(ctx, flow.PruneOptions{Flow: q.Msg.Flow, Keep: keep, Rehearse: rehearsal != nil}) {
		if err != nil {
			failed = err
			break
		}
		removed[pruned.Flow]++
		if rehearsal != nil {
			rehearsal.Note(store.Change{Key: "execution/" + pruned.Execution, Before: []byte("{}")})
			continue
		}
		if failed = rpc.SendLine(stream, pruned); failed != nil {
			break // nobody listens; what is gone is recorded all the same
		}
	}
	switch {
	case rehearsal != nil:
		return rpc.RehearsedOr(failed)
	case len(removed) > 0:
		if err := f.config.Audit(ctx, c, "flow.prune", "flow/"+q.Msg.Flow, removed); err != nil {
			return err
		}
	}
	return failed
}
