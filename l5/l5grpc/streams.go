package l5grpc

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

type streamKey struct{}

// Streams is a grpc.StreamClientInterceptor that has the latency of a stream end with its first message.
func Streams(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	first := new(atomic.Pointer[time.Time])
	s, err := streamer(context.WithValue(ctx, streamKey{}, first), desc, conn, method, options...)
	if err != nil {
		return nil, err
	}
	return &stream{s, first}, nil
}

// stream notes when the first message came.
type stream struct {
	grpc.ClientStream
	first *atomic.Pointer[time.Time]
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if s.first.Load() == nil {
		now := time.Now()
		s.first.CompareAndSwap(nil, &now)
	}
	return err
}

// latency is the time since begin, or to the first message of a stream.
func latency(ctx context.Context, begin time.Time) time.Duration {
	if first, ok := ctx.Value(streamKey{}).(*atomic.Pointer[time.Time]); ok && first.Load() != nil {
		return first.Load().Sub(begin)
	}
	return time.Since(begin)
}
