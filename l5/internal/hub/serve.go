package hub

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Stream is a watch stream from the server's side.
type Stream struct {
	Receive func() (*l5pb.WatchRequest, error)
	Send    func(*Frame) error
	// Changed returns a channel that is closed when verdicts may have changed; nil: they never do, or Hub.Recheck tells.
	Changed func() <-chan struct{}
	// Requested is called with each request before it is served; nil: not called.
	Requested func(*l5pb.WatchRequest)
	// Close ends a Receive that waits; nil: that of inbound.Closer for Serve's ctx. With it, that ctx need not be the
	// request's: thousands of streams may share one that says when to stop.
	Close func()
}

// Serve serves stream from sub until the peer ends it, ctx ends, or either way fails. The caller's goroutine receives;
// another sends, and is there only while there is something to send: an idle stream costs no stack for it.
//
//	idle --woken--> sending --nothing left--> idle
//	                   |
//	                   +--Send failed--> over
func Serve(ctx context.Context, stream Stream, sub *Subscriber) error {
	if stream.Close == nil {
		stream.Close = inbound.Closer(ctx)
	}
	s := &sender{stream: stream, sub: sub}
	defer context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })()
	sub.onWake(s.wake)
	defer s.stop()
	if stream.Changed != nil {
		ctx, cancel := context.WithCancel(ctx)
		var rechecking sync.WaitGroup
		rechecking.Go(func() { recheck(ctx, stream.Changed, sub) })
		defer rechecking.Wait()
		defer cancel()
	}
	for {
		request, err := stream.Receive()
		if cause := s.cause(); cause != nil {
			err = cause
		}
		if err != nil {
			return inbound.Ended(err)
		}
		if stream.Requested != nil {
			stream.Requested(request)
		}
		sub.Request(request)
	}
}

// recheck asks for verdicts again whenever they may have changed.
func recheck(ctx context.Context, changed func() <-chan struct{}, sub *Subscriber) {
	for {
		next := changed() // before asking again: a change in between is then seen
		sub.Recheck()
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// sender sends a subscriber's frames.
type sender struct {
	stream Stream
	sub    *Subscriber

	mu      sync.Mutex
	running bool  // guarded by mu; a goroutine sends
	again   bool  // guarded by mu; woken since that one looked
	over    bool  // guarded by mu
	err     error // guarded by mu; why it is over
	ended   sync.WaitGroup
}

// wake makes sure that what there is now is sent. It does not block.
func (s *sender) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = true
	if !s.running && !s.over {
		s.running = true
		s.ended.Go(s.run)
	}
}

// run sends until nothing is left.
func (s *sender) run() {
	for s.next() {
		frames, err := s.sub.Frames()
		for _, frame := range frames {
			if err = errors.Join(err, s.stream.Send(frame)); err != nil {
				break
			}
		}
		if err != nil {
			s.fail(err)
		}
	}
}

// fail ends the stream.
func (s *sender) fail(err error) {
	s.mu.Lock()
	s.over = true
	s.err = cmp.Or(s.err, err)
	s.mu.Unlock()
	s.stream.Close()
}

// cause returns why the stream was ended; nil if it was not.
func (s *sender) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// next reports whether to look again; if not, the goroutine is over.
func (s *sender) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = s.again && !s.over
	s.again = false
	return s.running
}

// stop waits for what is being sent, and sends no more.
func (s *sender) stop() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.ended.Wait()
}
