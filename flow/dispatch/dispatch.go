// Package dispatch hands the attempts of device tools to the workers of the devices. It is the server's side of package worker, and
// implements flow.Remote:
//
//	d, err := dispatch.New(dispatch.Config{})
//	engine, err := flow.New(flow.Config{Store: store, Tools: tools, Remote: d})
//	mux.Handle(d.Handler())
//
// A Dispatcher keeps nothing: what a restarted engine asks for again, the worker answers from its own disk.
package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"connectrpc.com/connect"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb/flowpbconnect"
)

// Config says how devices are dealt with. The zero Config is usable.
type Config struct {
	// Grace is how long a device may be away before its attempts fail with flow.CodeDeviceLost. Default 15s.
	Grace time.Duration
	// Authorize decides whether the peer of ctx may speak for a device. Default: everyone who reaches the handler.
	Authorize func(ctx context.Context, device string) error
	// OnDevice is called when a device's worker comes and goes. It must return soon. Default: none.
	OnDevice func(device string, live bool)
	// Logger gets a line when a worker comes or goes. Default: none.
	Logger *slog.Logger
}

// Dispatcher is a flow.Remote over the streams of workers. It is safe for concurrent use.
type Dispatcher struct {
	config Config
	log    *slog.Logger

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	watches  map[string]*watch   // per device on which attempts run
	calls    map[string]*pending // by attempt
	away     map[string]*absence // per device without a stream
	boxes    map[string]*mailbox // by session, of workers that call
}

var _ flow.Remote = (*Dispatcher)(nil)

type pending struct {
	call   flow.Call
	result chan flow.Result // holds one
}

// session is one worker's stream.
type session struct {
	device string
	plans  bool                  // it understands Run.plan
	tools  unique.Handle[string] // names, joined; most devices have the same
	out    chan *flowpb.WorkResponse
	put    func(*flowpb.WorkResponse) // in place of out, if set
	done   chan struct{}              // closed when the stream has ended
	cancel func()                     // called with Dispatcher.mu held
}

// New checks the configuration.
func New(config Config) (*Dispatcher, error) {
	if config.Grace < 0 {
		return nil, fmt.Errorf("dispatch: Config.Grace is %s: want a positive duration, or 0 for 15s", config.Grace)
	}
	if config.Grace == 0 {
		config.Grace = 15 * time.Second
	}
	d := &Dispatcher{
		config: config, log: config.Logger, sessions: map[string]*session{}, watches: map[string]*watch{},
		calls: map[string]*pending{}, away: map[string]*absence{}, boxes: map[string]*mailbox{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}

// Handler returns the path and the handler of zhiyun.flow.v1.DispatchService.
func (d *Dispatcher) Handler() (string, http.Handler) {
	return flowpbconnect.NewDispatchServiceHandler(service{d}, connect.WithReadMaxBytes(8<<20))
}

// Devices lists the devices whose workers are connected, by name.
func (d *Dispatcher) Devices() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(d.sessions))
	for device := range d.sessions {
		out = append(out, device)
	}
	slices.Sort(out)
	return out
}

// Tools counts the connected devices that have a tool, by its name. Workers that do not tell what they have are not counted.
func (d *Dispatcher) Tools() map[string]int {
	sets := map[unique.Handle[string]]int{}
	d.mu.Lock()
	for _, s := range d.sessions {
		sets[s.tools]++
	}
	d.mu.Unlock()
	out := map[string]int{}
	for set, devices := range sets {
		for name := range strings.FieldsSeq(set.Value()) {
			out[name] += devices
		}
	}
	return out
}

// toolset is what a worker says that it has.
func toolset(hello *flowpb.Hello) unique.Handle[string] {
	names := hello.GetTools()
	return unique.Make(strings.Join(names[:min(len(names), maxTools)], " "))
}

// maxTools bounds what is remembered of a worker's tools.
const maxTools = 4096

// Run implements flow.Remote.
func (d *Dispatcher) Run(ctx context.Context, call flow.Call) flow.Result {
	p := &pending{call: call, result: make(chan flow.Result, 1)}
	d.mu.Lock()
	if d.calls[call.ID] != nil {
		d.mu.Unlock()
		return flow.Result{Error: &flow.Error{Code: "dispatch", Message: "attempt " + call.ID + " is handed over twice at a time", Permanent: true}}
	}
	d.calls[call.ID] = p
	if a := d.away[call.Device]; a != nil {
		delete(a.dropped, call.ID)
	}
	d.watched(call.Device)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.calls, call.ID)
		d.unwatched(call.Device)
		d.mu.Unlock()
	}()

	away := time.NewTimer(d.config.Grace)
	defer away.Stop()
	stop := ctx.Done()
	stopping := false
	for {
		s, changed := d.session(call.Device)
		if s != nil {
			away.Stop()
			switch {
			case stopping:
				s.send(stopMessage(call.ID))
			case call.Plan && !s.plans:
				return flow.Result{Error: &flow.Error{Code: flow.CodePlan, Message: "the worker of device " + call.Device + " is too old to be asked for a plan; update it"}}
			default:
				s.send(runMessage(call))
			}
		} else {
			away.Reset(d.patience(call.Device))
		}
	wait:
		for {
			select {
			case result := <-p.result:
				return result
			case <-changed:
				break wait
			case <-away.C:
				d.drop(call.Device, call.ID)
				return flow.Result{Error: &flow.Error{
					Code: flow.CodeDeviceLost, Unknown: true,
					Message: fmt.Sprintf("the worker of device %s has been away for %s", call.Device, d.config.Grace),
				}}
			case <-stop:
				if errors.Is(context.Cause(ctx), flow.ErrClosed) {
					return flow.Result{Error: &flow.Error{Code: flow.CodeLost, Message: "the engine stopped", Unknown: true}}
				}
				stop, stopping = nil, true
				if s != nil {
					s.send(stopMessage(call.ID))
				}
			}
		}
	}
}

// Acknowledge implements flow.Remote.
func (d *Dispatcher) Acknowledge(call flow.Call) {
	d.mu.Lock()
	s := d.sessions[call.Device]
	d.mu.Unlock()
	if s == nil {
		d.drop(call.Device, call.ID)
		return
	}
	s.send(acknowledgeMessage(call.ID))
}

// session returns the stream of a device that is watched, nil if it is away, and a channel that is closed when that changes.
func (d *Dispatcher) session(device string) (*session, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[device], d.watches[device].changed
}

// send queues a message, unless the stream ends first: then the next stream starts afresh.
func (s *session) send(message *flowpb.WorkResponse) {
	if s.put != nil {
		s.put(message)
		return
	}
	select {
	case s.out <- message:
	case <-s.done:
	}
}

// service is the handler of the wire protocol.
type service struct{ d *Dispatcher }

// Work implements flowpbconnect.DispatchServiceHandler.
func (h service) Work(ctx context.Context, stream *connect.BidiStream[flowpb.WorkRequest, flowpb.WorkResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello.GetDevice() == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must be a hello that names the device"))
	}
	if err := h.d.authorize(ctx, hello.GetDevice()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{device: hello.GetDevice(), plans: hello.GetPlans(), tools: toolset(hello), out: make(chan *flowpb.WorkResponse, 64), done: make(chan struct{}), cancel: cancel}
	var writer sync.WaitGroup
	writer.Go(func() {
		defer cancel()
		for {
			select {
			case message := <-s.out:
				if stream.Send(message) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	h.d.join(s, hello)
	received := make(chan error, 1)
	go func() { received <- h.d.receive(s, stream) }() // ends with the stream, at the latest when this handler has returned
	select {
	case err = <-received:
	case <-ctx.Done():
		err = connect.NewError(connect.CodeAborted, errors.New("another worker of this device has connected, or the stream broke"))
	}
	cancel()
	h.d.leave(s)
	writer.Wait()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// authorize says whether the peer of ctx may speak for the device.
func (d *Dispatcher) authorize(ctx context.Context, device string) error {
	if d.config.Authorize == nil {
		return nil
	}
	if err := d.config.Authorize(ctx, device); err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	return nil
}

// join makes s the device's stream, in place of any other.
func (d *Dispatcher) join(s *session, hello *flowpb.Hello) {
	d.mu.Lock()
	if old := d.sessions[s.device]; old != nil {
		old.cancel()
	}
	d.sessions[s.device] = s
	d.notify(s.device)
	var dropped map[string]bool
	if a := d.away[s.device]; a != nil {
		dropped = a.dropped
		delete(d.away, s.device)
	}
	d.mu.Unlock()
	d.log.Info("worker connected", "device", s.device, "running", len(hello.GetRunning()), "finished", len(hello.GetFinished()))
	if d.config.OnDevice != nil {
		d.config.OnDevice(s.device, true)
	}
	for id := range dropped {
		s.send(stopMessage(id))
		s.send(acknowledgeMessage(id))
	}
}

func (d *Dispatcher) leave(s *session) {
	close(s.done)
	d.gone(s)
}

// gone takes out a session that has ended.
func (d *Dispatcher) gone(s *session) {
	d.mu.Lock()
	current := d.sessions[s.device] == s
	if current {
		delete(d.sessions, s.device)
		d.absent(s.device).left = time.Now()
		d.notify(s.device)
	}
	d.mu.Unlock()
	if current {
		d.log.Info("worker gone", "device", s.device)
		if d.config.OnDevice != nil {
			d.config.OnDevice(s.device, false)
		}
	}
}

// receive takes in what the worker says until its stream ends.
func (d *Dispatcher) receive(s *session, stream *connect.BidiStream[flowpb.WorkRequest, flowpb.WorkResponse]) error {
	for {
		message, err := stream.Receive()
		if err != nil {
			return err
		}
		d.heard(s, message)
	}
}

// heard takes in one thing that the worker says.
func (d *Dispatcher) heard(s *session, message *flowpb.WorkRequest) {
	switch kind := message.GetKind().(type) {
	case *flowpb.WorkRequest_Finished:
		if p := d.pending(s.device, kind.Finished.GetId()); p != nil {
			select {
			case p.result <- result(kind.Finished):
			default: // told twice
			}
		}
	case *flowpb.WorkRequest_Log:
		if p := d.pending(s.device, kind.Log.GetId()); p != nil && p.call.Log != nil {
			p.call.Log(kind.Log.GetData())
		}
	}
}

// pending returns the attempt that is waited for, if it is this device's.
func (d *Dispatcher) pending(device, id string) *pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.calls[id]; p != nil && p.call.Device == device {
		return p
	}
	return nil
}

func result(f *flowpb.Finished) flow.Result {
	out := flow.Result{Output: f.GetOutput(), Logs: f.GetLogs(), Ran: flow.Ran{Version: f.GetVersion(), Digest: f.GetDigest(), Limits: f.GetLimits()}}
	if e := f.GetError(); e == nil {
		out.Output, out.Error = object(f.GetOutput())
	} else {
		out.Error = &flow.Error{Code: e.GetCode(), Message: e.GetMessage(), Permanent: e.GetPermanent(), Unknown: e.GetUnknown()}
	}
	return out
}

// object holds an output to what every tool promises, whoever ran it.
func object(output []byte) ([]byte, *flow.Error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, output); err != nil || compact.Len() == 0 || compact.Bytes()[0] != '{' || compact.Len() > flow.MaxOutput {
		return nil, &flow.Error{Code: flow.CodeOutput, Permanent: true, Message: fmt.Sprintf("the worker handed in %.80q; want one JSON object of at most %d bytes", output, flow.MaxOutput)}
	}
	return compact.Bytes(), nil
}

func runMessage(c flow.Call) *flowpb.WorkResponse {
	return &flowpb.WorkResponse{Kind: &flowpb.WorkResponse_Run{Run: &flowpb.Run{
		Id: c.ID, Execution: c.Execution, Flow: c.Flow, Step: c.Step, Item: int32(c.Item), Attempt: int32(c.Attempt), Key: c.Key, Tool: c.Tool,
		Undo: c.Undo, Probe: c.Probe, Input: c.Input, TimeoutMs: c.Timeout.Milliseconds(),
		Plan: c.Plan, HeartbeatMs: c.Heartbeat.Milliseconds(),
	}}}
}

func stopMessage(id string) *flowpb.WorkResponse {
	return &flowpb.WorkResponse{Kind: &flowpb.WorkResponse_Stop{Stop: &flowpb.Stop{Id: id}}}
}

func acknowledgeMessage(id string) *flowpb.WorkResponse {
	return &flowpb.WorkResponse{Kind: &flowpb.WorkResponse_Acknowledge{Acknowledge: &flowpb.Acknowledge{Id: id}}}
}
