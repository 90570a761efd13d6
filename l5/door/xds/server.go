package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door"
	"github.com/zhiyun-ops/zhiyun/l5/internal/socket"
)

// Door is an xDS server.
type Door struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	config    Config
	names     door.Names
	started   atomic.Bool
	ready     chan struct{} // closed when addr is set
	addr      net.Addr
	streams   prometheus.Gauge
	responses *prometheus.CounterVec
	nacks     prometheus.Counter
}

// New reports all faults of config at once, and opens nothing.
func New(config Config) (*Door, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	d := &Door{
		config: config, names: door.Bound(config.Names, config.MaxServices, 5*time.Minute), ready: make(chan struct{}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "zhiyun_l5_door_xds_streams", Help: "Streams that are open."}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_l5_door_xds_responses_total", Help: "Responses sent, by type of resource."}, []string{"type"}),
		nacks:     prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_l5_door_xds_nacks_total", Help: "Responses that a client rejected."}),
	}
	if config.Metrics != nil {
		err := errors.Join(config.Metrics.Register(d.streams), config.Metrics.Register(d.responses), config.Metrics.Register(d.nacks))
		if err != nil {
			return nil, fmt.Errorf("l5/door/xds: register metrics: %w", err)
		}
	}
	return d, nil
}

// Run serves until ctx ends, and returns nil then. It is called once.
func (d *Door) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("l5/door/xds: Run was called twice; make a new door")
	}
	listener, release, err := d.listen()
	if err != nil {
		return fmt.Errorf("l5/door/xds: %w", err)
	}
	defer release()
	d.addr = listener.Addr()
	close(d.ready)
	d.config.Logger.Info("l5/door/xds: serving", "addr", d.addr.String())
	server := grpc.NewServer(
		grpc.MaxConcurrentStreams(16), grpc.MaxRecvMsgSize(1<<20), grpc.ConnectionTimeout(5*time.Second), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	discoverypb.RegisterAggregatedDiscoveryServiceServer(server, d)
	detach := context.AfterFunc(ctx, server.Stop) // streams have no end of their own
	defer detach()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("l5/door/xds: %w", err)
	}
	server.Stop() // waits for handlers
	return nil
}

func (d *Door) listen() (net.Listener, func(), error) {
	if path, unix := strings.CutPrefix(d.config.Listen, "unix://"); unix {
		listener, release, err := socket.Listen(path)
		if err != nil {
			return nil, nil, err
		}
		return door.Limit(listener, d.config.MaxConns), release, nil
	}
	listener, err := door.Listen(d.config.Listen, d.config.MaxConns)
	if err != nil {
		return nil, nil, err
	}
	return listener, func() { listener.Close() }, nil
}

// Addr waits until the door listens and returns where.
func (d *Door) Addr(ctx context.Context) (net.Addr, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("l5/door/xds: not listening yet; is Run running? %w", context.Cause(ctx))
	}
}

// stream is the shell around a session.
type stream struct {
	door    *Door
	rpc     discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	running sync.WaitGroup // watchers

	mu       sync.Mutex // guards sending, and what follows
	session  *session
	watchers map[string]context.CancelFunc // by service
}

// StreamAggregatedResources implements the protocol.
func (d *Door) StreamAggregatedResources(rpc discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	d.streams.Inc()
	defer d.streams.Dec()
	ctx, cancel := context.WithCancel(rpc.Context())
	s := &stream{door: d, rpc: rpc, session: newSession(d.config.Services, d.config.MaxServices), watchers: make(map[string]context.CancelFunc)}
	defer s.running.Wait()
	defer cancel()
	for {
		request, err := rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.request(ctx, request)
		}
		if err != nil {
			return err
		}
	}
}

// request answers a message, and watches what it asks for.
func (s *stream) request(ctx context.Context, r *discoverypb.DiscoveryRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	response, nack, err := s.session.request(r)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if nack != nil {
		s.door.nacks.Inc()
		s.door.config.Logger.Warn("l5/door/xds: a client rejects what it was sent, and keeps what it had",
			"node", r.GetNode().GetId(), "type", nack.Type, "version", nack.Version, "reason", nack.Reason)
	}
	wanted := make(map[string]bool)
	for _, service := range s.session.services() {
		wanted[service] = true
		if s.watchers[service] == nil {
			watching, stop := context.WithCancel(ctx)
			s.watchers[service] = stop
			s.running.Go(func() { s.watch(watching, service) })
		}
	}
	for service, stop := range s.watchers {
		if !wanted[service] {
			stop()
			delete(s.watchers, service)
			s.session.forget(service)
		}
	}
	return s.send(response)
}

// send tells the client something, if there is something. Callers hold mu.
func (s *stream) send(response *discoverypb.DiscoveryResponse) error {
	if response == nil {
		return nil
	}
	s.door.responses.WithLabelValues(response.GetTypeUrl()[strings.LastIndexByte(response.GetTypeUrl(), '.')+1:]).Inc()
	return s.rpc.Send(response)
}

// watch hands each state of a service to the stream.
func (s *stream) watch(ctx context.Context, service string) {
	for ctx.Err() == nil {
		view, changed, err := s.door.names.Lookup(ctx, s.door.config.Caller, service)
		next := known{denied: errors.Is(err, l5.ErrDenied)}
		if err == nil {
			next.endpoints, err = endpoints(named(view, service), s.door.config.SiteLabel)
		}
		if err != nil && !next.denied {
			again := time.NewTimer(time.Second) // the bound on names: others may be let go of
			select {
			case <-again.C:
			case <-ctx.Done():
			}
			again.Stop()
			continue
		}
		if s.learn(ctx, service, next) != nil {
			return // the stream is broken
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// learn takes what was looked up, unless nobody asks for it any more.
func (s *stream) learn(ctx context.Context, service string, next known) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	responses, err := s.session.learn(service, next)
	if err != nil {
		s.door.config.Logger.Error("l5/door/xds: a service cannot be told", "service", service, "error", err)
	}
	for _, response := range responses {
		if err := s.send(response); err != nil {
			return err
		}
	}
	return nil
}

func named(view agent.View, service string) agent.View {
	view.Service = service
	return view
}
