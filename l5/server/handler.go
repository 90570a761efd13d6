package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// handler speaks the wire protocol for a Server.
type handler struct{ server *Server }

var _ l5pbconnect.NameServiceHandler = (*handler)(nil)

// life returns a context that ends with ctx or when the server stops.
func (s *Server) life(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(s.stopping, func() { cancel(errStopping) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}

var errStopping = connect.NewError(connect.CodeUnavailable, errors.New("the server is stopping; connect again"))

var errAway = connect.NewError(connect.CodeUnavailable, errors.New("this server is cut off from its store; register with another"))

func proven(ctx context.Context, identify func(context.Context, http.Header, string) (string, error), header http.Header, claimed string) (string, error) {
	if identify == nil {
		return claimed, nil
	}
	caller, err := identify(ctx, header, claimed)
	if err != nil {
		return "", connect.NewError(connect.CodePermissionDenied, err)
	}
	return caller, nil
}

// Watch implements the wire protocol.
func (h *handler) Watch(ctx context.Context, stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
	s := h.server
	if err := s.Ready(ctx); err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	who := &gate{server: s, ctx: ctx, header: stream.RequestHeader()}
	sub := s.hub.Subscriber(who)
	defer sub.Close()
	send := func(f *hub.Frame) error { return stream.Send(f.Encoded()) }
	if strings.Contains(stream.RequestHeader().Get("Content-Type"), "json") {
		send = func(f *hub.Frame) error { return stream.Send(f.Message()) }
	}
	heard, left := s.audience.listener(), false // left: by its own will
	defer func() {
		switch {
		case s.stopping.Err() != nil: // it is the server that goes
		case left:
			heard.end(time.Time{})
		default:
			heard.end(s.config.now())
		}
	}()
	// All streams share the context of the server: one for each would cost more than the rest of what is ours.
	return hub.Serve(s.stopping, hub.Stream{
		Close: inbound.Closer(ctx),
		Receive: func() (*l5pb.WatchRequest, error) {
			request, err := stream.Receive()
			left = errors.Is(err, io.EOF)
			if err != nil {
				return nil, err
			}
			who.name(request)
			return request, nil
		},
		Send: send,
		Requested: func(request *l5pb.WatchRequest) {
			heard.take(who.proven(request))
			if device := request.GetDevice(); device != "" && s.config.Place != nil {
				site, city := s.config.Place(device)
				sub.Tell(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Place{Place: &l5pb.Place{Device: device, Site: site, City: city}}})
			}
		},
	}, sub)
}

// Register implements the wire protocol.
func (h *handler) Register(ctx context.Context, stream *connect.BidiStream[l5pb.RegisterRequest, l5pb.RegisterResponse]) error {
	s := h.server
	ctx, cancel := s.life(ctx)
	defer cancel()
	if err := s.registry.loaded(ctx); err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	requests, ended, stop := inbound.Pump(ctx, stream.Receive)
	defer stop()
	var owner string
	for {
		var request *l5pb.RegisterRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return inbound.Ended(err)
		case <-s.leases.away():
			return errAway
		case request = <-requests:
		}
		if owner == "" {
			var err error
			if owner, err = proven(ctx, s.config.IdentifyOwner, stream.RequestHeader(), request.GetOwner()); err != nil {
				return err
			}
			if owner == "" {
				return connect.NewError(connect.CodeInvalidArgument, errors.New("the first request of a register stream names its owner"))
			}
			s.leases.opened(owner, s.config.now())
			defer s.release(owner)
			defer s.outages.forget(owner)
		}
		if err := stream.Send(s.carryOut(ctx, owner, request)); err != nil {
			return inbound.Ended(err)
		}
	}
}

// release counts a register stream out, unless it is the server that goes: the peer is fine then.
func (s *Server) release(owner string) {
	if s.stopping.Err() == nil {
		s.leases.closed(owner, s.config.now())
	}
}

// carryOut does what one request asks for, removals first.
func (s *Server) carryOut(ctx context.Context, owner string, request *l5pb.RegisterRequest) *l5pb.RegisterResponse {
	response := &l5pb.RegisterResponse{Seq: request.GetSeq()}
	revision, err := s.change(ctx, owner, request)
	response.Revision = revision
	if err != nil {
		response.Fault = err.Error()
	}
	return response
}

func (s *Server) change(ctx context.Context, owner string, request *l5pb.RegisterRequest) (int64, error) {
	if request.GetOutages() != nil {
		s.outages.hear(owner, request.GetOutages()) // before what is put, which is registered as it is
	}
	permit := permit{server: s, ctx: ctx, owner: owner, refused: make(map[id]error), acknowledged: make(map[id]int64)}
	revision, err := s.registry.edit(ctx, names(request.GetRemove()), permit.standing(removeAll))
	if err != nil {
		return revision, err
	}
	if len(request.GetPut()) > 0 {
		instances := make([]l5.Instance, 0, len(request.GetPut()))
		for _, p := range request.GetPut() {
			instance := l5.InstanceFromProto(p)
			instance.Owner = owner
			permit.acknowledged[id{instance.Service, instance.Addr}] = p.GetAcknowledged()
			if permit.serves(id{instance.Service, instance.Addr}, instance) {
				instances = append(instances, instance)
			}
		}
		registered, err := s.register(ctx, instances, permit.standing)
		if err != nil {
			return revision, err
		}
		revision = max(revision, registered)
	}
	drained, err := s.registry.edit(ctx, names(request.GetDrain()), permit.standing(func(_ id, have *row) (l5.Instance, verb) { return draining(have) }))
	if request.GetOutages() != nil && err == nil {
		err = s.settle(ctx, owner)
	}
	return max(revision, drained), errors.Join(err, permit.err())
}

// permit asks whether an owner may change what it asks to change, and remembers what was refused.
type permit struct {
	server  *Server
	ctx     context.Context
	owner   string
	refused map[id]error

	acknowledged map[id]int64 // of what is registered again: at which revision it was
}

func (p *permit) allows(name id, instance l5.Instance) bool {
	return p.ask(p.server.config.MayChange, name, instance)
}

// serves asks for what is to be registered anew.
func (p *permit) serves(name id, instance l5.Instance) bool {
	return p.allows(name, instance) && p.ask(p.server.config.MayServe, name, instance)
}

func (p *permit) ask(may func(context.Context, string, l5.Instance) error, name id, instance l5.Instance) bool {
	if may == nil {
		return true
	}
	err := may(p.ctx, p.owner, instance)
	if err != nil {
		p.server.metrics.refused.WithLabelValues("register").Inc()
		p.refused[name] = fmt.Errorf("%s of %s: %w", name.addr, name.service, err)
	}
	return err == nil
}

// standing leaves a row as it is that the owner may not change.
func (p *permit) standing(change change) change {
	return func(name id, have *row) (l5.Instance, verb) {
		if have != nil && !p.allows(name, have.Instance) {
			return l5.Instance{}, leave
		}
		if p.server.stale(p.owner, p.acknowledged[name], have) {
			p.refused[name] = fmt.Errorf("%s of %s, owner %s: %w", name.addr, name.service, have.Owner, ErrStale)
			return l5.Instance{}, leave
		}
		return change(name, have)
	}
}

func (p *permit) err() error {
	var faults []error
	for _, name := range slices.SortedFunc(maps.Keys(p.refused), compareID) {
		faults = append(faults, p.refused[name])
	}
	return errors.Join(faults...)
}

func names(keys []*l5pb.Key) []id {
	out := make([]id, len(keys))
	for i, key := range keys {
		out[i] = id{key.GetService(), key.GetAddr()}
	}
	return out
}

// Report implements the wire protocol.
func (h *handler) Report(ctx context.Context, request *connect.Request[l5pb.ReportRequest]) (*connect.Response[l5pb.ReportResponse], error) {
	s := h.server
	if request.Msg.GetReporter() == "" || request.Msg.GetSeq() == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a report carries the reporter's id and a seq above 0"))
	}
	if n := len(request.Msg.GetReporter()); n > maxReporterID {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("reporter is of %d bytes; give an id of at most %d", n, maxReporterID))
	}
	refused := (&gate{server: s, ctx: ctx, header: request.Header()}).sift(request.Msg)
	duplicate, err := s.intake.take(ctx, request.Msg, s.config.now())
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	if duplicate {
		s.metrics.duplicates.Inc()
	}
	return connect.NewResponse(&l5pb.ReportResponse{Duplicate: duplicate, Refused: refused}), nil
}

// Explain implements the wire protocol.
func (h *handler) Explain(ctx context.Context, request *connect.Request[l5pb.ExplainRequest]) (*connect.Response[l5pb.ExplainResponse], error) {
	s := h.server
	if err := s.registry.loaded(ctx); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	explanation := s.Explain(request.Msg.GetService())
	response := &l5pb.ExplainResponse{
		Service: explanation.Service, Epoch: explanation.Epoch, Revision: explanation.Revision, Subscribers: int64(explanation.Subscribers),
	}
	for _, status := range explanation.Instances {
		response.Instances = append(response.Instances, &l5pb.InstanceStatus{
			Instance: status.Instance.Proto(), EffectiveWeight: status.EffectiveWeight, Live: status.Live, Reason: status.Reason,
		})
	}
	if caller := request.Msg.GetCaller(); caller != "" {
		response.Grant = fmt.Sprintf("caller %q may call %q", caller, explanation.Service)
		if allowed, reason := (&gate{server: s}).granted(caller, explanation.Service); !allowed {
			response.Grant = reason
		}
	}
	return connect.NewResponse(response), nil
}
