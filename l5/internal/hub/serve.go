package hub

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Stream is a watch stream from the server's side.
type Stream struct {
	Receive func() (*l5pb.WatchRequest, error)
	Send    func(*Frame) error
	// Changed returns a channel that is closed when verdicts may have changed; nil: they never do.
	Changed func() <-chan struct{}
	// Requested is called with each request before it is served; nil: not called.
	Requested func(*l5pb.WatchRequest)
}

// Serve serves stream from sub until the peer ends it, ctx ends, or either way fails.
func Serve(ctx context.Context, stream Stream, sub *Subscriber) error {
	requests, ended, stop := inbound.Pump(ctx, stream.Receive)
	defer stop()
	changed := func() <-chan struct{} { return nil }
	if stream.Changed != nil {
		changed = stream.Changed
	}
	next := changed()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return inbound.Ended(err)
		case request := <-requests:
			if stream.Requested != nil {
				stream.Requested(request)
			}
			sub.Request(request)
		case <-next:
			next = changed() // before asking again: a change in between is then seen
			sub.Recheck()
		case <-sub.Wake():
			frames, err := sub.Frames()
			if err != nil {
				return err
			}
			for _, frame := range frames {
				if err := stream.Send(frame); err != nil {
					return inbound.Ended(err)
				}
			}
		}
	}
}
