// Package worker runs the tools of flows on a device. It holds one stream to the server, runs what it is handed as local processes
// (or Go functions), and keeps results on disk until the server has them.
//
//	tools := flow.NewTools()
//	tools.Exec(flow.Manifest{Name: "package.install", Command: []string{"zhiyun", "tool", "package.install"}, OnDevice: true})
//	w, err := worker.New(worker.Config{Target: "https://server:7070", Token: token, Device: "d1", Tools: tools, Dir: "/var/lib/zhiyun/attempts"})
//	err = w.Run(ctx)
//
// An attempt is written to disk before it runs, and runs once: after a reconnect, or a restart of either side, the same
// attempt is answered from there. Tools do not survive the worker; an attempt that was cut off is reported as such, and the
// server settles it by the tool's effect.
package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb/flowpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Config says what a worker is and whom it serves.
type Config struct {
	// Target is the server: unix:///path, http://127.0.0.1:port or https://host:port. Required.
	Target string
	// Token is sent as a bearer token. Default: none.
	Token string
	// TLS is used for https targets. Default: the system's roots.
	TLS *tls.Config
	// Device is the name under which steps reach this worker. Required.
	Device string
	// Tools are what it can run. Required.
	Tools *flow.Tools
	// Dir is a folder for attempts and results; only this worker may use it. Required.
	Dir string
	// Env is added to the environment of tools, as NAME=value.
	Env []string
	// Grace is how long Run lets attempts finish when its context ends. Default 5s.
	Grace time.Duration
	// Keep is how long a result that nobody acknowledges is kept. Default 24h.
	Keep time.Duration
	// Logger gets a line when the connection comes or goes. Default: none.
	Logger *slog.Logger
}

// Worker runs tools on a device.
//
//	New -> Run -> (context ends) lets attempts finish, returns
type Worker struct {
	config  Config
	log     *slog.Logger
	journal journal
	tasks   sync.WaitGroup
	ready   chan struct{} // there are unsent results

	mu       sync.Mutex // guards what follows
	attempts map[string]*attempt
	out      chan *flowpb.WorkRequest // logs for the stream that is up; nil if none
	unsent   map[string]*flow.Result  // results to tell on the stream that is up
	failing  bool                     // the folder could not be written to last
}

// attempt is one that runs, or whose result is not acknowledged.
type attempt struct {
	entry
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	unsaved bool // its result is not on disk; guarded by Worker.mu
}

// CodeDisk is the code of an attempt that was not begun because the worker could not write it down. Another attempt may be made.
const CodeDisk = "worker.disk"

// New checks the configuration. It starts and opens nothing.
func New(config Config) (*Worker, error) {
	var faults []error
	missing := func(field, mend string) {
		faults = append(faults, fmt.Errorf("worker: Config.%s is empty: %s", field, mend))
	}
	if config.Target == "" {
		missing("Target", "give the server's URL")
	} else if _, _, err := transport.Dial(transport.DialConfig{Target: config.Target}); err != nil {
		faults = append(faults, fmt.Errorf("worker: Config.Target: %w", err))
	}
	if config.Device == "" {
		missing("Device", "give the device's name")
	}
	if config.Dir == "" {
		missing("Dir", "give a folder for results")
	}
	if config.Tools == nil {
		missing("Tools", "hand in flow.NewTools() with the device's tools registered")
	}
	if config.Grace < 0 || config.Keep < 0 {
		faults = append(faults, fmt.Errorf("worker: Config.Grace is %s and Config.Keep %s: want positive durations", config.Grace, config.Keep))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if config.Grace == 0 {
		config.Grace = 5 * time.Second
	}
	if config.Keep == 0 {
		config.Keep = 24 * time.Hour
	}
	w := &Worker{config: config, log: config.Logger, journal: journal{dir: filepath.Join(config.Dir, "attempts")}, attempts: map[string]*attempt{}, unsent: map[string]*flow.Result{}, ready: make(chan struct{}, 1)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	return w, nil
}

// Run serves until ctx ends, reconnecting as often as needed; then it lets attempts finish for the grace period, kills what is left and returns nil. It returns
// an error when the folder cannot be read. While the folder cannot be written to, attempts are refused with CodeDisk. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.recover(); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	root, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	client, base, err := transport.Dial(transport.DialConfig{Target: w.config.Target, Token: w.config.Token, TLS: w.config.TLS})
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	defer client.CloseIdleConnections()
	service := flowpbconnect.NewDispatchServiceClient(client, base, connect.WithGRPC(), connect.WithReadMaxBytes(8<<20))

	// The stream stays up while attempts finish, so that their results still get through.
	streaming, hangUp := context.WithCancel(root)
	var link sync.WaitGroup
	link.Go(func() { w.connect(streaming, root, service) })
	<-ctx.Done()
	finished := make(chan struct{})
	link.Go(func() {
		w.tasks.Wait()
		close(finished)
	})
	timer := time.NewTimer(w.config.Grace)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
	}
	hangUp()
	kill()
	link.Wait()
	return nil
}

// recover reads what a former worker has left. What ran then has died with it.
func (w *Worker) recover() error {
	entries, err := w.journal.load()
	if err != nil {
		return err
	}
	for _, one := range entries {
		if one.Result == nil {
			one.Result = &flow.Result{Error: &flow.Error{Code: flow.CodeLost, Message: "the worker stopped while it ran", Unknown: true}}
			one.At = time.Now()
			if err := w.journal.put(one); err != nil { // the next start would say the same of it
				w.log.Warn("an attempt that was cut off cannot be written down", "attempt", one.Call.ID, "error", err)
			}
		}
		done := make(chan struct{})
		close(done)
		w.attempts[one.Call.ID] = &attempt{entry: one, done: done, cancel: func() {}}
	}
	return nil
}

// connect keeps a stream up until ctx ends.
func (w *Worker) connect(ctx, root context.Context, service flowpbconnect.DispatchServiceClient) {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	wait := least
	for ctx.Err() == nil {
		began := time.Now()
		err := w.stream(ctx, root, service)
		if ctx.Err() != nil {
			return
		}
		w.save()
		if time.Since(began) > most {
			wait = least
		}
		w.log.Warn("no stream to the server, trying again", "target", w.config.Target, "error", err, "after", wait)
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
func (w *Worker) stream(ctx, root context.Context, service flowpbconnect.DispatchServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := service.Work(ctx)
	out := make(chan *flowpb.WorkRequest, 256)
	hello := w.greet(out)
	var writer sync.WaitGroup
	writer.Go(func() {
		defer cancel()
		// Until the request is closed, the transport does not see that its context has ended.
		defer stream.CloseRequest()
		w.write(ctx, stream, hello, out)
	})
	defer func() {
		w.mu.Lock()
		if w.out == out {
			w.out = nil
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
func (w *Worker) greet(out chan *flowpb.WorkRequest) *flowpb.Hello {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
	clear(w.unsent)
	hello := &flowpb.Hello{Device: w.config.Device, Plans: true}
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
			w.unsent[id] = a.Result
		}
	}
	return hello
}

// write sends the greeting, then results and logs until the stream breaks.
func (w *Worker) write(ctx context.Context, stream *connect.BidiStreamForClient[flowpb.WorkRequest, flowpb.WorkResponse], hello *flowpb.Hello, logs <-chan *flowpb.WorkRequest) {
	if stream.Send(&flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Hello{Hello: hello}}) != nil {
		return
	}
	w.log.Info("connecting", "target", w.config.Target, "device", w.config.Device, "running", len(hello.Running), "finished", len(hello.Finished))
	for {
		w.mu.Lock()
		results := w.unsent
		w.unsent = map[string]*flow.Result{}
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
		case <-w.ready:
		case <-ctx.Done():
			return
		}
	}
}

// tell has a result sent. A stream that breaks loses nothing: the next one begins with all results that are kept.
func (w *Worker) tell(id string, result *flow.Result) {
	w.mu.Lock()
	w.unsent[id] = result
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// forward sends a piece of a log, if the stream has room for it.
func (w *Worker) forward(id string, data []byte) {
	w.mu.Lock()
	out := w.out
	w.mu.Unlock()
	if out == nil {
		return
	}
	piece := append([]byte(nil), data...)
	select {
	case out <- &flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Log{Log: &flowpb.Log{Id: id, Data: piece}}}:
	default:
	}
}

func finished(id string, r *flow.Result) *flowpb.WorkRequest {
	f := &flowpb.Finished{Id: id, Output: r.Output, Logs: r.Logs, Version: r.Ran.Version, Digest: r.Ran.Digest, Limits: r.Ran.Limits}
	if e := r.Error; e != nil {
		f.Error = &flowpb.Error{Code: e.Code, Message: e.Message, Permanent: e.Permanent, Unknown: e.Unknown}
	}
	return &flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Finished{Finished: f}}
}
