package agent

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/internal/peer"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// handler speaks the server's protocol to the device's programs.
type handler struct{ agent *Agent }

var _ l5pbconnect.NameServiceHandler = (*handler)(nil)

var errStopping = connect.NewError(connect.CodeUnavailable, errors.New("the agent is stopping; connect again"))

// life returns a context that ends with ctx or when the agent stops.
func (a *Agent) life(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(a.stopping, func() { cancel(errStopping) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}

// Watch implements the wire protocol.
func (h *handler) Watch(ctx context.Context, stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
	a := h.agent
	ctx, end := a.life(ctx)
	defer end()
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	program, err := peer.Of(transport.Conn(ctx))
	if err != nil {
		program.UID = uint32(os.Geteuid())
	}
	if program.PID <= 0 { // the kernel does not say, or it is of another PID namespace
		program.PID = -int(a.strangers.Add(1)) // each stream counts as a process
	}
	who := a.speaker(ctx)
	voice := juror{program.PID, who.party(program.UID)}
	own := program.PID == os.Getpid() // it keeps routes warm, and calls nobody
	sub := a.hub.Subscriber(who)
	defer sub.Close()
	defer a.asked.gone(sub)
	asked := make(map[pair]struct{})
	defer func() {
		for p := range asked {
			a.callers.release(p.caller, p.service, a.now())
			if !own {
				a.health.leave(p.service, voice.party)
			}
		}
	}()
	send := func(f *hub.Frame) error { return stream.Send(f.Encoded()) }
	if strings.Contains(stream.RequestHeader().Get("Content-Type"), "json") {
		send = func(f *hub.Frame) error { return stream.Send(f.Message()) }
	}
	return hub.Serve(ctx, hub.Stream{
		Receive: stream.Receive, Send: send, Changed: a.callers.Changed,
		Greeting: &l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Health{Health: &l5pb.Health{}}}, // doubts are welcome
		Requested: func(request *l5pb.WatchRequest) {
			a.asked.heard(sub, request)
			for _, want := range request.GetUnsubscribe() {
				p := pair{want.GetCaller(), want.GetService()}
				if _, ok := asked[p]; ok {
					delete(asked, p)
					a.callers.release(p.caller, p.service, a.now())
					if !own {
						a.health.leave(p.service, voice.party)
					}
				}
			}
			for _, want := range request.GetSubscribe() {
				p := pair{want.GetCaller(), want.GetService()}
				if _, ok := asked[p]; !ok && who.subscribe(want) {
					asked[p] = struct{}{}
					if !own {
						a.health.attend(p.service, voice.party)
					}
					a.tables.read(int(program.UID), p.caller, p.service)
					a.callers.ask(p.caller, p.service)
				}
			}
			a.health.doubt(voice, a.entitled(request.GetDoubts(), asked))
		},
	}, sub)
}

// entitled returns the doubts about services that the stream has asked for and may call: others are none of its business.
func (a *Agent) entitled(doubts []*l5pb.Doubt, asked map[pair]struct{}) []*l5pb.Doubt {
	return slices.DeleteFunc(doubts, func(d *l5pb.Doubt) bool {
		for p := range asked {
			if p.service != d.GetService() {
				continue
			}
			if allowed, _, _ := a.callers.Verdict(p.caller, p.service); allowed {
				return false
			}
		}
		return true
	})
}

// Register implements the wire protocol. What a program registers here is registered upstream under the device's lease.
func (h *handler) Register(ctx context.Context, stream *connect.BidiStream[l5pb.RegisterRequest, l5pb.RegisterResponse]) error {
	a := h.agent
	ctx, end := a.life(ctx)
	defer end()
	who := a.speaker(ctx)
	requests, ended, stop := inbound.Pump(ctx, stream.Receive)
	defer stop()
	defer func() {
		if a.stopping.Err() == nil { // a program whose agent stops is fine
			a.locals.lost(stream, a.now())
		}
	}()
	for {
		var request *l5pb.RegisterRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return inbound.Ended(err)
		case request = <-requests:
		}
		response := &l5pb.RegisterResponse{Seq: request.GetSeq()}
		if err := a.carryOut(ctx, who, stream, request); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			response.Fault = err.Error()
		}
		if err := stream.Send(response); err != nil {
			return inbound.Ended(err)
		}
	}
}

// carryOut does what one request asks for, removals first.
func (a *Agent) carryOut(ctx context.Context, who *speaker, stream any, request *l5pb.RegisterRequest) error {
	defer a.disk.touch()
	for _, key := range request.GetRemove() {
		if err := who.touch(key); err != nil {
			return err
		}
		a.locals.drop(key.GetService(), key.GetAddr())
		if err := a.keeper.Remove(ctx, key.GetService(), key.GetAddr()); err != nil {
			return err
		}
	}
	for _, p := range request.GetPut() {
		instance := proto.CloneOf(p)
		if instance.GetDevice() == "" {
			instance.Device = a.config.Device
		}
		if err := l5.InstanceFromProto(instance).Check(); err != nil {
			return err
		}
		if err := who.touch(&l5pb.Key{Service: instance.GetService(), Addr: instance.GetAddr()}); err != nil {
			return err
		}
		if err := who.register(instance); err != nil {
			return err
		}
		a.locals.put(stream, instance.GetService(), instance.GetAddr(), instance.GetModule())
		if err := a.keeper.Put(ctx, instance); err != nil {
			return err
		}
	}
	for _, key := range request.GetDrain() {
		if err := who.touch(key); err != nil {
			return err
		}
		if err := a.keeper.Drain(ctx, key.GetService(), key.GetAddr()); err != nil {
			return err
		}
	}
	return nil
}

// Report implements the wire protocol.
func (h *handler) Report(ctx context.Context, request *connect.Request[l5pb.ReportRequest]) (*connect.Response[l5pb.ReportResponse], error) {
	if request.Msg.GetReporter() == "" || request.Msg.GetSeq() == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a report carries the reporter's id and a seq above 0"))
	}
	if err := h.agent.speaker(ctx).report(request.Msg); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	response, err := h.agent.forward.take(request.Msg, h.agent.now())
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(response), nil
}

// explainWait is how long a server may take to explain before the agent answers from its copy.
const explainWait = 2 * time.Second

// Explain implements the wire protocol: upstream's answer, or what the agent's own copy says, and what the device's
// programs make of it.
func (h *handler) Explain(ctx context.Context, request *connect.Request[l5pb.ExplainRequest]) (*connect.Response[l5pb.ExplainResponse], error) {
	response, err := h.explain(ctx, request)
	if err == nil && request.Msg.GetProcesses() {
		response.Msg.Processes = h.agent.asked.ask(ctx, request.Msg.GetService())
	}
	return response, err
}

// explain says what upstream knows, or else the agent.
func (h *handler) explain(ctx context.Context, request *connect.Request[l5pb.ExplainRequest]) (*connect.Response[l5pb.ExplainResponse], error) {
	a := h.agent
	bounded, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	response, err := a.wire.Explain(bounded, connect.NewRequest(request.Msg))
	if err == nil {
		a.health.explain(response.Msg)
		return connect.NewResponse(response.Msg), nil
	}
	v, ok := a.hub.View(request.Msg.GetService())
	if !ok {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the server does not answer, and no program of this device has called the service"))
	}
	out := &l5pb.ExplainResponse{Service: v.Service, Epoch: v.Epoch, Revision: v.Revision, Subscribers: int64(a.hub.Subscribers(v.Service))}
	for _, p := range v.Instances {
		out.Instances = append(out.Instances, &l5pb.InstanceStatus{
			Instance: p, EffectiveWeight: l5.InstanceFromProto(p).EffectiveWeight(), Live: !p.GetSuspect(),
			Reason: "from the agent's copy: the server does not answer",
		})
	}
	a.health.explain(out)
	return connect.NewResponse(out), nil
}
