package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

const (
	// exchangePatience is how long after an answer the worker may stay away.
	exchangePatience = 10 * time.Second
	// exchangeMost is how long one call may wait for something to tell, and exchangeMany how much one answer tells.
	exchangeMost = 30 * time.Second
	exchangeMany = 64
)

// mailbox holds what is to be told to a worker that calls for it.
//
//	(first call) -> open -call-> open ... -- nobody calls for exchangePatience, or another worker of the device comes --> closed
type mailbox struct {
	session  *session
	calling  chan struct{} // holds one: calls of a session follow one another
	close    func()        // ends the session, once. Dispatcher.mu is held
	patience *time.Timer

	mu    sync.Mutex             // guards what follows
	queue []*flowpb.WorkResponse // what is not known to be heard
	heard int64                  // messages before queue
	more  chan struct{}          // closed when something is added
}

func (m *mailbox) put(message *flowpb.WorkResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, message)
	close(m.more)
	m.more = make(chan struct{})
}

// confirm forgets what was heard.
func (m *mailbox) confirm(heard int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := heard - m.heard
	if n < 0 || n > int64(len(m.queue)) {
		return fmt.Errorf("heard is %d, of messages %d to %d", heard, m.heard, m.heard+int64(len(m.queue)))
	}
	clear(m.queue[:n])
	m.queue, m.heard = m.queue[n:], heard
	return nil
}

// next returns what is not known to be heard, or a channel that is closed when there is something.
func (m *mailbox) next() ([]*flowpb.WorkResponse, int64, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := min(len(m.queue), exchangeMany)
	return append([]*flowpb.WorkResponse(nil), m.queue[:n]...), m.heard + int64(n), m.more
}

// Exchange implements flowpbconnect.DispatchServiceHandler.
func (h service) Exchange(ctx context.Context, q *connect.Request[flowpb.ExchangeRequest]) (*connect.Response[flowpb.ExchangeResponse], error) {
	d, id, say := h.d, q.Msg.GetSession(), q.Msg.GetSay()
	var box *mailbox
	if id == "" {
		if len(say) == 0 || say[0].GetHello().GetDevice() == "" {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a session begins with a hello that names the device: say[0].hello.device"))
		}
		hello := say[0].GetHello()
		if err := d.authorize(ctx, hello.GetDevice()); err != nil {
			return nil, err
		}
		var err error
		if id, err = uid.Ordered(); err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		box = d.open(id, hello)
		say = say[1:]
	} else {
		d.mu.Lock()
		box = d.boxes[id]
		d.mu.Unlock()
		if box == nil {
			return nil, connect.NewError(connect.CodeNotFound, errors.New("this session has ended; begin another with a hello"))
		}
		// A session's name is no secret.
		if err := d.authorize(ctx, box.session.device); err != nil {
			return nil, err
		}
	}
	select {
	case box.calling <- struct{}{}:
		defer func() { <-box.calling }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	box.patience.Stop()
	defer box.patience.Reset(exchangePatience)
	if err := box.confirm(q.Msg.GetHeard()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	for _, message := range say {
		d.heard(box.session, message)
	}
	wait := time.NewTimer(min(time.Duration(max(q.Msg.GetWaitMs(), 0))*time.Millisecond, exchangeMost))
	defer wait.Stop()
	for {
		tell, told, more := box.next()
		if len(tell) > 0 {
			return connect.NewResponse(&flowpb.ExchangeResponse{Session: id, Tell: tell, Told: told}), nil
		}
		select {
		case <-more:
		case <-wait.C:
			return connect.NewResponse(&flowpb.ExchangeResponse{Session: id, Told: told}), nil
		case <-box.session.done:
			return nil, connect.NewError(connect.CodeNotFound, errors.New("another worker of this device has connected; begin another session if that was not meant"))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open makes a session for a worker that calls.
func (d *Dispatcher) open(id string, hello *flowpb.Hello) *mailbox {
	box := &mailbox{calling: make(chan struct{}, 1), more: make(chan struct{})}
	s := &session{device: hello.GetDevice(), plans: hello.GetPlans(), tools: toolset(hello), done: make(chan struct{}), put: box.put}
	box.session = s
	box.close = sync.OnceFunc(func() {
		delete(d.boxes, id)
		close(s.done)
	})
	s.cancel = box.close
	box.patience = time.AfterFunc(exchangePatience, func() { d.expire(box) })
	d.mu.Lock()
	d.boxes[id] = box
	d.mu.Unlock()
	d.join(s, hello)
	return box
}

// expire ends the session of a worker that has stayed away.
func (d *Dispatcher) expire(box *mailbox) {
	select {
	case box.calling <- struct{}{}: // no call is under way
		defer func() { <-box.calling }()
	default:
		return
	}
	d.mu.Lock()
	box.close()
	d.mu.Unlock()
	d.gone(box.session)
}
