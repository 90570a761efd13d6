package hub

import (
	"context"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Progress is sent at the pace that the subscriber asks for, within these bounds.
const (
	minProgress = 100 * time.Millisecond
	maxProgress = time.Minute
)

// Stream is a watch stream from the server's side.
type Stream struct {
	Receive func() (*l5pb.WatchRequest, error)
	Send    func(*Frame) error
	// Changed returns a channel that is closed when verdicts may have changed; nil: they never do.
	Changed func() <-chan struct{}
	// Requested is called with each request before it is served; nil: not called.
	Requested func(*l5pb.WatchRequest)
	// Greeting is sent first; nil: nothing is.
	Greeting *l5pb.WatchResponse
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
	out := sender{send: stream.Send}
	if stream.Greeting != nil {
		if err := out.message(stream.Greeting); err != nil {
			return inbound.Ended(err)
		}
	}
	var pace <-chan time.Time // of Progress; nil: not asked for
	for {
		var err error
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
			if every := time.Duration(request.GetProgressMs()) * time.Millisecond; every > 0 && pace == nil {
				ticker := time.NewTicker(min(max(every, minProgress), maxProgress))
				defer ticker.Stop()
				pace = ticker.C
				err = out.progress() // the peer learns at once that it will come
			}
		case <-next:
			next = changed() // before asking again: a change in between is then seen
			sub.Recheck()
		case <-pace:
			err = out.progress()
		case <-sub.Wake():
			frames, fault := sub.Frames()
			if fault != nil {
				return fault
			}
			err = out.frames(frames)
		}
		if err != nil {
			return inbound.Ended(err)
		}
	}
}

// sender counts what it sends.
type sender struct {
	send func(*Frame) error
	sent uint64
}

func (s *sender) frames(frames []*Frame) error {
	for _, frame := range frames {
		if err := s.send(frame); err != nil {
			return err
		}
		s.sent++
	}
	return nil
}

func (s *sender) message(message *l5pb.WatchResponse) error {
	frame, err := newFrame(message)
	if err != nil {
		return err
	}
	return s.frames([]*Frame{frame})
}

func (s *sender) progress() error {
	return s.message(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Progress{Progress: &l5pb.Progress{Messages: s.sent}}})
}
