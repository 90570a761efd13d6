package hub

import (
	"cmp"
	"context"
	"errors"
	"sync"
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
	// Changed returns a channel that is closed when verdicts may have changed; nil: they never do, or Hub.Recheck tells.
	Changed func() <-chan struct{}
	// Requested is called with each request before it is served; nil: not called.
	Requested func(*l5pb.WatchRequest)
	// Greeting is sent first; nil: nothing is.
	Greeting *l5pb.WatchResponse
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
	if stream.Greeting != nil {
		s.wake()
	}
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
		if every := time.Duration(request.GetProgressMs()) * time.Millisecond; every > 0 {
			s.pace(min(max(every, minProgress), maxProgress))
		}
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
	due     bool  // guarded by mu; a Progress is
	over    bool  // guarded by mu
	err     error // guarded by mu; why it is over
	ended   sync.WaitGroup
	timer   *time.Timer // guarded by mu; of Progress; nil: not asked for
	sent    uint64      // owned by the goroutine that sends
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
	for {
		more, progress := s.next()
		if !more {
			return
		}
		err := s.greet()
		if err == nil {
			var frames []*Frame
			frames, err = s.sub.Frames()
			err = errors.Join(err, s.send(frames))
		}
		if err == nil && progress {
			err = s.message(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Progress{Progress: &l5pb.Progress{Messages: s.sent}}})
		}
		if err != nil {
			s.fail(err)
		}
	}
}

// greet sends the greeting, once.
func (s *sender) greet() error {
	greeting := s.stream.Greeting
	if greeting == nil {
		return nil
	}
	s.stream.Greeting = nil
	return s.message(greeting)
}

func (s *sender) message(message *l5pb.WatchResponse) error {
	frame, err := newFrame(message)
	if err != nil {
		return err
	}
	return s.send([]*Frame{frame})
}

// send sends frames, and counts them.
func (s *sender) send(frames []*Frame) error {
	for _, frame := range frames {
		if err := s.stream.Send(frame); err != nil {
			return err
		}
		s.sent++
	}
	return nil
}

// pace makes a Progress due now, so that the peer learns that it will come, and every so often.
func (s *sender) pace(every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(0, func() { s.tick(every) })
	}
}

func (s *sender) tick(every time.Duration) {
	s.mu.Lock()
	s.due = true
	if !s.over {
		s.timer.Reset(every)
	}
	s.mu.Unlock()
	s.wake()
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

// next reports whether to look again, and whether a Progress is due; if not, the goroutine is over.
func (s *sender) next() (more, progress bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = s.again && !s.over
	progress = s.due
	s.again, s.due = false, false
	return s.running, progress
}

// stop waits for what is being sent, and sends no more.
func (s *sender) stop() {
	s.mu.Lock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.ended.Wait()
}
