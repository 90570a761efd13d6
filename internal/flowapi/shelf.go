package flowapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func (f *API) shelf() (*shelf.Shelf, *flow.Engine, error) {
	if f.config.Shelf == nil || f.config.Engine == nil {
		return nil, nil, fmt.Errorf("%w: pushed tools", rpc.ErrAbsent)
	}
	return f.config.Shelf, f.config.Engine, nil
}

// breaking says which flows a tool breaks, as an error unless that is allowed.
func breaking(ctx context.Context, engine *flow.Engine, m flow.Manifest, allowed bool) ([]flow.BrokenFlow, error) {
	broken, err := engine.BrokenBy(ctx, m)
	if err != nil || len(broken) == 0 || allowed {
		return broken, err
	}
	lines := []string{fmt.Sprintf("tool %s would break %d flows; mend them first, or say that you want it (--break)", m.Name, len(broken))}
	for _, b := range broken {
		lines = append(lines, fmt.Sprintf("flow %s version %d, %d open: %s", b.Flow, b.Version, b.Open, b.Faults[0]))
	}
	return broken, fmt.Errorf("%w: %s", flow.ErrInvalid, strings.Join(lines, "\n"))
}

// rehearseTool tells what a change of a tool would do: which tool runs, and which flows no longer compile.
func rehearseTool(r *store.Rehearsal, m flow.Manifest, broken []flow.BrokenFlow) error {
	err := rpc.Noted(r, "tool/"+m.Name, m)
	for _, b := range broken {
		err = errors.Join(err, rpc.Noted(r, fmt.Sprintf("flow/%s/%d", b.Flow, b.Version), map[string]any{"broken": b}))
	}
	return rpc.RehearsedOr(err)
}

func (f *API) PushTool(ctx context.Context, stream *connect.ClientStream[pb.PushToolRequest]) (*connect.Response[pb.JSON], error) {
	shelf, engine, err := f.shelf()
	if err != nil {
		return nil, err
	}
	if !stream.Receive() {
		return nil, rpc.FirstMessage(stream.Err())
	}
	head := stream.Msg()
	breaks, first := head.BreakFlows, head.Chunk
	c, err := rpc.ReadCause(ctx, head.Cause)
	if err != nil {
		return nil, err
	}
	staged, err := shelf.Stage(rpc.Received(first, stream, (*pb.PushToolRequest).GetChunk))
	if err != nil {
		return nil, err
	}
	m := staged.Manifest
	f.pushing.Lock()
	defer f.pushing.Unlock()
	rehearsal := store.RehearsalOf(ctx)
	broken, err := breaking(ctx, engine, m, breaks || rehearsal != nil)
	if err == nil && rehearsal != nil {
		err = rehearseTool(rehearsal, m, broken)
	}
	if err != nil {
		return nil, errors.Join(err, staged.Discard())
	}
	if m, err = staged.Keep(); err == nil {
		err = engine.Replace(m)
	}
	if err != nil {
		return nil, err
	}
	return rpc.Document(m, f.config.Audit(ctx, c, "tool.push", "tool/"+m.Name, m.Version+" "+m.Digest))
}

func (f *API) UseTool(ctx context.Context, q *connect.Request[pb.UseToolRequest]) (*connect.Response[pb.JSON], error) {
	shelf, engine, err := f.shelf()
	if err != nil {
		return nil, err
	}
	c, err := rpc.ReadCause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	f.pushing.Lock()
	defer f.pushing.Unlock()
	m, err := shelf.Version(q.Msg.Name, q.Msg.Digest)
	if err != nil {
		return nil, err
	}
	rehearsal := store.RehearsalOf(ctx)
	broken, err := breaking(ctx, engine, m, q.Msg.BreakFlows || rehearsal != nil)
	if err != nil {
		return nil, err
	}
	if rehearsal != nil {
		return nil, rehearseTool(rehearsal, m, broken)
	}
	if err := errors.Join(shelf.Use(m.Name, m.Digest), engine.Replace(m)); err != nil {
		return nil, err
	}
	return rpc.Document(m, f.config.Audit(ctx, c, "tool.use", "tool/"+m.Name, m.Version+" "+m.Digest))
}

func (f *API) ToolVersions(_ context.Context, q *connect.Request[pb.ToolsRequest]) (*connect.Response[pb.Listing], error) {
	shelf, _, err := f.shelf()
	if err != nil {
		return nil, err
	}
	versions, err := shelf.List(q.Msg.Name)
	return rpc.Listing(versions, "", err)
}
