package control

import (
	"context"
	"io"
	"io/fs"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// packages serves PackageService, files FileService.
type (
	packages struct{ *API }
	files    struct{ *API }
)

// chunks is the content of a stream of messages.
type chunks struct {
	next func() ([]byte, error) // io.EOF at the end
	rest []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var err error
		if c.rest, err = c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// received reads a client's stream, the first message of which was read already.
func received[T any](first []byte, stream *connect.ClientStream[T], chunk func(*T) []byte) io.Reader {
	return &chunks{rest: first, next: func() ([]byte, error) {
		if stream.Receive() {
			return chunk(stream.Msg()), nil
		}
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}}
}

func (p packages) Push(ctx context.Context, stream *connect.ClientStream[pb.PushPackageRequest]) (*connect.Response[pb.JSON], error) {
	if !stream.Receive() {
		return nil, firstMessage(stream.Err())
	}
	head := stream.Msg()
	name, version, first := head.Name, head.Version, head.Chunk
	c, err := p.cause(ctx, head.Cause)
	if err != nil {
		return nil, err
	}
	pushed, err := p.config.Centers.Packages.Push(ctx, name, version, received(first, stream, (*pb.PushPackageRequest).GetChunk), c.Actor)
	if err != nil {
		return nil, err
	}
	return document(pushed, p.audit(ctx, c, "package.push", "package/"+name+"/"+version, pushed.Digest))
}

func firstMessage(err error) error {
	if err != nil {
		return err
	}
	return invalid("stream", "empty", "send a first message that names what is pushed")
}

func (p packages) Get(ctx context.Context, q *connect.Request[pb.PackageRequest]) (*connect.Response[pb.JSON], error) {
	return document(p.config.Centers.Packages.Get(ctx, q.Msg.Name, q.Msg.Version))
}

func (p packages) List(ctx context.Context, q *connect.Request[pb.PackageRequest]) (*connect.Response[pb.Listing], error) {
	return listing(p.config.Centers.Packages.List(ctx, q.Msg.Name, page(q.Msg.Page)))
}

func (f files) Push(ctx context.Context, stream *connect.ClientStream[pb.PushFileRequest]) (*connect.Response[pb.JSON], error) {
	if !stream.Receive() {
		return nil, firstMessage(stream.Err())
	}
	head := stream.Msg()
	namespace, path, mode, first := head.Namespace, head.Path, head.Mode, head.Chunk
	c, err := f.cause(ctx, head.Cause)
	if err != nil {
		return nil, err
	}
	pushed, err := f.config.Centers.Files.Push(ctx, namespace, path, fs.FileMode(mode), received(first, stream, (*pb.PushFileRequest).GetChunk), c.Actor)
	if err != nil {
		return nil, err
	}
	return document(pushed, f.audit(ctx, c, "file.push", "file/"+namespace+"/"+path, pushed.Digest))
}

func (f files) Get(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.JSON], error) {
	return document(f.config.Centers.Files.Get(ctx, q.Msg.Namespace, q.Msg.Path))
}

func (f files) List(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Listing], error) {
	return listing(f.config.Centers.Files.List(ctx, q.Msg.Namespace, page(q.Msg.Page)))
}

func (f files) Delete(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Done], error) {
	c, err := f.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := f.config.Centers.Files.Delete(ctx, q.Msg.Namespace, q.Msg.Path); err != nil {
		return nil, err
	}
	return done(f.audit(ctx, c, "file.delete", "file/"+q.Msg.Namespace+"/"+q.Msg.Path, nil))
}

func (f files) Resolve(ctx context.Context, q *connect.Request[pb.FileRequest]) (*connect.Response[pb.Listing], error) {
	found, err := f.config.Centers.Files.Resolve(ctx, q.Msg.Source)
	return listing(found, "", err)
}
