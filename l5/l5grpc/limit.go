package l5grpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// Metadata by which callers and servers help each other; deadlines travel with gRPC itself.
const (
	// PriorityKey is a call's priority: critical, normal or sheddable. Without it a call is normal.
	PriorityKey = "zhiyun-priority"
	// LoadKey is a trailer: how full a server is, in the text form of limit.Load.
	LoadKey = "endpoint-load-metrics"
)

// Limit returns an interceptor that puts limiter before a server's unary calls: what is beyond the limit is answered at
// once with ResourceExhausted. Exempt names the methods that go past it, such as health checks; nil is none. Streams
// are not limited: how long they last is no latency.
//
// A call's priority is in the context that the handler gets, so that calls made on its behalf through l5 have the same.
// Whoever lets calls in from outside removes PriorityKey, or everybody is critical.
func Limit(limiter *limit.Limiter, exempt func(method string) bool) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if exempt != nil && exempt(info.FullMethod) {
			return handler(ctx, request)
		}
		begin := time.Now()
		if load := limiter.Load().String(); load != "" {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(LoadKey, load)) // without a transport there is nobody to tell
		}
		priority := priorityOf(ctx)
		if !limiter.Enter(begin, priority) {
			s := limiter.State()
			return nil, status.Errorf(codes.ResourceExhausted, "overloaded: %d calls in flight, priority %v, %s", s.InFlight, priority, s.Reason())
		}
		result := limit.Failed // of a handler that panics
		defer func() {
			now := time.Now()
			limiter.Leave(now, now.Sub(begin), result)
		}()
		if priority != limit.Normal {
			ctx = limit.WithPriority(ctx, priority)
		}
		response, err := handler(ctx, request)
		switch ended := ctx.Err(); {
		case errors.Is(ended, context.DeadlineExceeded):
			result = limit.Expired
		case ended != nil:
			result = limit.Abandoned
		case Judge(err) == nil:
			result = limit.Done
		}
		return response, err
	}
}

// priorityOf reads the priority of a call that came in; an unknown one is normal.
func priorityOf(ctx context.Context) limit.Priority {
	values := metadata.ValueFromIncomingContext(ctx, PriorityKey)
	if len(values) == 0 {
		return limit.Normal
	}
	priority, _ := limit.ParsePriority(values[0])
	return priority
}

// hints is what goes along with a call of ctx.
func hints(ctx context.Context) metadata.MD {
	priority := limit.PriorityOf(ctx)
	if priority == limit.Normal {
		return nil
	}
	return metadata.Pairs(PriorityKey, priority.String())
}

// loadOf reads what a server said of itself.
func loadOf(trailer metadata.MD) limit.Load {
	values := trailer.Get(LoadKey)
	if len(values) == 0 {
		return limit.Load{}
	}
	return limit.ParseLoad(values[0])
}

// late makes an error match context.DeadlineExceeded, by which guards know calls that nobody answered in time.
func late(err error) error { return fmt.Errorf("%w: %w", context.DeadlineExceeded, err) }
