package worker

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb/flowpbconnect"
)

// link is what a worker has with one server.
type link struct {
	worker *Worker
	target string
	ready  chan struct{} // there are unsent results

	// Guarded by Worker.mu.
	out    chan *flowpb.WorkRequest // logs for the stream that is up; nil if none
	unsent map[string]*flow.Result  // results to tell on the stream that is up
}

// connect keeps a stream up until ctx ends.
func (l *link) connect(ctx, root context.Context, service flowpbconnect.DispatchServiceClient) {
	w := l.worker
	const least, most = 50 * time.Millisecond, 5 * time.Second
	wait := least
	for ctx.Err() == nil {
		began := time.Now()
		err := l.stream(ctx, root, service)
		if ctx.Err() != nil {
			return
		}
		w.save()
		if time.Since(began) > most {
			wait = least
		}
		w.log.Warn("no stream to the server, trying again", "target", l.target, "error", err, "after", wait)
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait = min(wait*2, most)
	}
}

// stream holds one stream until it breaks.
func (l *link) stream(ctx, root context.Context, service flowpbconnect.DispatchServiceClient) error {
	w := l.worker
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := service.Work(ctx)
	out := make(chan *flowpb.WorkRequest, 256)
	hello := l.greet(out)
	var writer sync.WaitGroup
	writer.Go(func() {
		defer cancel()
		// Until the request is closed, the transport does not see that its context has ended.
		defer stream.CloseRequest()
		l.write(ctx, stream, hello, out)
	})
	defer func() {
		w.mu.Lock()
		if l.out == out {
			l.out = nil
		}
		w.mu.Unlock()
		cancel()
		writer.Wait()
		// The stream is gone either way; its closing error says nothing more.
		_ = stream.CloseResponse()
	}()
	for {
		message, err := stream.Receive()
		if err != nil {
			return err
		}
		switch kind := message.GetKind().(type) {
		case *flowpb.WorkResponse_Run:
			w.take(root, kind.Run)
		case *flowpb.WorkResponse_Stop:
			w.end(kind.Stop.GetId())
		case *flowpb.WorkResponse_Acknowledge:
			w.forget(kind.Acknowledge.GetId())
		}
	}
}

// greet makes out the current stream and says what is known here.
func (l *link) greet(out chan *flowpb.WorkRequest) *flowpb.Hello {
	w := l.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	l.out = out
	clear(l.unsent)
	hello := &flowpb.Hello{Device: w.config.Device, Plans: true}
	for _, tool := range w.config.Tools.Manifests() {
		hello.Tools = append(hello.Tools, tool.Name)
	}
	for id, a := range w.attempts {
		switch {
		case a.Result == nil:
			hello.Running = append(hello.Running, id)
		case time.Since(a.At) > w.config.Keep:
			if err := w.journal.remove(id); err == nil {
				delete(w.attempts, id)
			}
		default:
			hello.Finished = append(hello.Finished, id)
			l.unsent[id] = a.Result
		}
	}
	return hello
}

// write sends the greeting, then results and logs until the stream breaks.
func (l *link) write(ctx context.Context, stream *connect.BidiStreamForClient[flowpb.WorkRequest, flowpb.WorkResponse], hello *flowpb.Hello, logs <-chan *flowpb.WorkRequest) {
	w := l.worker
	if stream.Send(&flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Hello{Hello: hello}}) != nil {
		return
	}
	w.log.Info("connecting", "target", l.target, "device", w.config.Device, "running", len(hello.Running), "finished", len(hello.Finished))
	for {
		w.mu.Lock()
		results := l.unsent
		l.unsent = map[string]*flow.Result{}
		w.mu.Unlock()
		for id, result := range results {
			if stream.Send(finished(id, result)) != nil {
				return
			}
		}
		select {
		case message := <-logs:
			if stream.Send(message) != nil {
				return
			}
		case <-l.ready:
		case <-ctx.Done():
			return
		}
	}
}
