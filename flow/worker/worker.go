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
	// Others are further servers that share the flows of the first: each of them may have this device run an attempt, and any goes on where another
	// has died. They are called as Target is, with the same Token and TLS. Default: none.
	Others []string
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
	links   []*link // one for each server

	mu       sync.Mutex // guards what follows, and the links
	attempts map[string]*attempt
	failing  bool // the folder could not be written to last
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
	for i, target := range config.Others {
		if _, _, err := transport.Dial(transport.DialConfig{Target: target}); err != nil {
			faults = append(faults, fmt.Errorf("worker: Config.Others[%d]: %w", i, err))
		}
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
	w := &Worker{config: config, log: config.Logger, journal: journal{dir: filepath.Join(config.Dir, "attempts")}, attempts: map[string]*attempt{}}
	for _, target := range append([]string{config.Target}, config.Others...) {
		w.links = append(w.links, &link{worker: w, target: target, ready: make(chan struct{}, 1), unsent: map[string]*flow.Result{}})
	}
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
	// The streams stay up while attempts finish, so that their results still get through.
	streaming, hangUp := context.WithCancel(root)
	defer hangUp()
	var background sync.WaitGroup
	for _, l := range w.links {
		client, base, err := transport.Dial(transport.DialConfig{Target: l.target, Token: w.config.Token, TLS: w.config.TLS})
		if err != nil {
			hangUp()
			background.Wait()
			return fmt.Errorf("worker: %w", err)
		}
		defer client.CloseIdleConnections()
		service := flowpbconnect.NewDispatchServiceClient(client, base, connect.WithGRPC(), connect.WithReadMaxBytes(8<<20))
		background.Go(func() { l.connect(streaming, root, service) })
	}
	<-ctx.Done()
	finished := make(chan struct{})
	background.Go(func() {
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
	background.Wait()
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

// tell has a result sent to every server: the one that asked may be dead, and another go on. One that does not know the attempt lets it pass.
func (w *Worker) tell(id string, result *flow.Result) {
	w.mu.Lock()
	for _, l := range w.links {
		if l.out != nil { // else the next stream begins with it
			l.unsent[id] = result
		}
	}
	w.mu.Unlock()
	for _, l := range w.links {
		select {
		case l.ready <- struct{}{}:
		default:
		}
	}
}

// forward sends a piece of a log, if a stream has room for it.
func (w *Worker) forward(id string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var message *flowpb.WorkRequest
	for _, l := range w.links {
		if l.out == nil {
			continue
		}
		if message == nil {
			message = &flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Log{Log: &flowpb.Log{Id: id, Data: append([]byte(nil), data...)}}}
		}
		select {
		case l.out <- message:
		default:
		}
	}
}

func finished(id string, r *flow.Result) *flowpb.WorkRequest {
	f := &flowpb.Finished{Id: id, Output: r.Output, Logs: r.Logs, Version: r.Ran.Version, Digest: r.Ran.Digest, Limits: r.Ran.Limits}
	if e := r.Error; e != nil {
		f.Error = &flowpb.Error{Code: e.Code, Message: e.Message, Permanent: e.Permanent, Unknown: e.Unknown}
	}
	return &flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Finished{Finished: f}}
}
