package control

import (
	"context"
	"io/fs"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// packages serves PackageService, files FileService.
type (
	packages struct{ *API }
	files    struct{ *API }
)

func (p packages) Push(ctx context.Context, stream *connect.ClientStream[pb.PushPackageRequest]) (*connect.Response[pb.JSON], error) {
	if !stream.Receive() {
		return nil, rpc.FirstMessage(stream.Err())
	}
	head := stream.Msg()
	name, version, first := head.Name, head.Version, head.Chunk
	c, err := p.cause(ctx, head.Cause)
	if err != nil {
		return nil, err
	}
	pushed, err := p.config.Centers.Packages.Push(ctx, name, version, rpc.Received(first, stream, (*pb.PushPackageRequest).GetChunk), c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(pushed, p.audit(ctx, c, "package.push", "package/"+name+"/"+version, pushed.Digest))
}

func (p packages) Get(ctx context.Context, q *connect.Request[pb.PackageRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(p.config.Centers.Packages.Get(ctx, q.Msg.Name, q.Msg.Version))
}

func (p packages) List(ctx context.Context, q *connect.Request[pb.PackageRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(p.config.Centers.Packages.List(ctx, q.Msg.Name, page(q.Msg.Page)))
}

func (f files) Push(ctx context.Context, stream *connect.ClientStream[pb.PushFileRequest]) (*connect.Response[pb.JSON], error) {
	if !stream.Receive() {
		return nil, rpc.FirstMessage(stream.Err())
	}
	head := stream.Msg()
	namespace, path, mode, first := head.Namespace, head.Path, head.Mode, head.Chunk
	c, err := f.cause(ctx, head.Cause)
	if err != nil {
		return nil, err
	}
	pushed, err := f.config.Centers.Files.Push(ctx, namespace, path, fs.FileMode(mode), rpc.Received(first, stream, (*pb.PushFileRequest).GetChunk), c.Actor)
	if err != nil {
		return nil, err
	}
	return rpc.Document(pushed, f.audit(ctx, c, "file.push", "file/"+namespace+"/"+path, pushed.Digest))
}

func (f files) Get(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.JSON], error) {
	return rpc.Document(f.config.Centers.Files.Get(ctx, q.Msg.Namespace, q.Msg.Path))
}

func (f files) List(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Listing], error) {
	return rpc.Listing(f.config.Centers.Files.List(ctx, q.Msg.Namespace, page(q.Msg.Page)))
}

func (f files) Delete(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Done], error) {
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := f.config.Centers.Files.Delete(ctx, q.Msg.Namespace, q.Msg.Path); err != nil {
		return nil, err
	}
	return rpc.Done(f.audit(ctx, c, "file.delete", "file/"+q.Msg.Namespace+"/"+q.Msg.Path, nil))
}

func (f files) Resolve(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Listing], error) {
	found, err := f.config.Centers.Files.Resolve(ctx, q.Msg.Source)
	return rpc.Listing(found, "", err)
}
