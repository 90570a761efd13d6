package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/internal/lease"
	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/socket"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// Agent is a device's name service. Its methods are safe for concurrent use.
//
//	      Run: files, socket                                  ctx ends
//	new -----------------------------> serving from disk ----------------> stopped (socket gone, files written)
//	                                     |          ^
//	                     upstream answers|          | upstream lost: serving goes on
//	                                     v          |
//	                                   serving what is pushed
type Agent struct {
	config    Config
	wire      l5pbconnect.NameServiceClient
	hangUp    func()         // closes the connections of wire
	mux       *http.ServeMux // of the socket
	shelf     *shelf
	hub       *hub.Hub
	link      *link.Link
	keeper    *lease.Keeper
	callers   *callers
	asked     *processes
	locals    *locals
	forward   *forward
	disk      *disk
	tables    *tables
	lookups   *lookups
	health    *health
	now       func() time.Time
	metrics   *metrics
	refused   hush
	strangers atomic.Int64 // streams of processes that the kernel does not name
	started   atomic.Bool
	ready     chan struct{}   // closed when the socket listens
	stopping  context.Context // ends when Run drains
	stop      context.CancelFunc
}

// New returns an agent. It reports all faults of config at once, and opens nothing: that is Run's.
func New(config Config) (*Agent, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	wire, hangUp, err := dial(config)
	if err != nil {
		return nil, fmt.Errorf("l5/agent: config: Upstream: %w", err)
	}
	a := &Agent{config: config, wire: wire, hangUp: hangUp, shelf: newShelf(config.Logger), ready: make(chan struct{}), now: config.now}
	a.hub = hub.Reading(a.shelf.View)
	a.stopping, a.stop = context.WithCancel(context.Background())
	if a.metrics, err = newMetrics(config.Metrics, a); err != nil {
		return nil, fmt.Errorf("l5/agent: register metrics: %w", err)
	}
	a.link = link.New(link.Config{
		Client: a.wire, Dial: func() (l5pbconnect.NameServiceClient, func(), error) { return dial(config) },
		Peer: "agent@" + config.Device, OnView: a.onView, OnVerdict: a.onVerdict, OnForget: a.onForget,
		Device: config.Device, OnSettings: a.onSettings, OnPlace: a.onPlace,
		OnResync: func(string) { a.metrics.resyncs.Inc() }, OnHold: a.onHold, Store: a.shelf, Now: config.now, Logger: config.Logger,
	})
	a.keeper = lease.New(lease.Config{Client: a.wire, Owner: config.Device, OnState: a.onState, Logger: config.Logger})
	a.asked = newProcesses()
	a.callers = newCallers(a.link, config.Linger, config.now)
	a.locals = newLocals(a.keeper, config)
	a.forward = newForward(a.wire, uid.New(), config, a.metrics)
	a.disk = newDisk(a)
	a.tables = newTables(a)
	a.lookups = newLookups(a)
	a.health = newHealth(a)
	a.mux = http.NewServeMux()
	a.mux.Handle(a.Handler())
	return a, nil
}

// dial returns a client of the server with connections of its own, and what closes those.
func dial(config Config) (l5pbconnect.NameServiceClient, func(), error) {
	client, base, err := transport.Dial(transport.DialConfig{
		Target: config.Upstream, Token: config.Token, TLS: config.TLS, Direct: []string{l5pbconnect.NameServiceWatchProcedure},
	})
	if err != nil {
		return nil, nil, err
	}
	return l5pbconnect.NewNameServiceClient(client, base, connect.WithAcceptCompression("gzip", nil, nil)), client.CloseIdleConnections, nil
}

// Handle has the socket serve more than the protocol, as a door does: pattern is one of http.ServeMux. Call it before Run.
func (a *Agent) Handle(pattern string, handler http.Handler) { a.mux.Handle(pattern, handler) }

// Run serves the socket until ctx ends; then it ends all streams, forwards the last outcomes, writes its files
// and returns nil. It is called once. That no server answers is no error: what is known is served.
func (a *Agent) Run(ctx context.Context) error {
	if !a.started.CompareAndSwap(false, true) {
		return errors.New("l5/agent: Run was called twice; make a new agent")
	}
	defer a.stop()
	defer a.shelf.close()
	if err := a.disk.load(); err != nil {
		a.config.Logger.Error("l5/agent: starting without the snapshot file: it is of no use", "file", a.config.SnapshotFile, "error", err)
	}
	if err := a.tables.load(); err != nil {
		a.config.Logger.Error("l5/agent: starting without parts of the route table", "folder", a.config.Table, "error", err)
	}
	listener, release, err := socket.Listen(a.config.Socket)
	if err != nil {
		return fmt.Errorf("l5/agent: %w", err)
	}
	defer release()
	close(a.ready)
	group, inner := errgroup.WithContext(ctx)
	context.AfterFunc(inner, a.stop)
	group.Go(func() error { return transport.NewServer(a.mux).Serve(inner, listener, time.Second) })
	group.Go(func() error { return a.link.Run(inner) })
	group.Go(func() error { return a.keeper.Run(inner) })
	group.Go(func() error { return a.locals.run(inner) })
	group.Go(func() error { return a.callers.run(inner) })
	group.Go(func() error { return a.forward.run(inner) })
	group.Go(func() error { return a.disk.run(inner) })
	group.Go(func() error { return a.tables.run(inner) })
	group.Go(func() error { return a.health.run(inner) })
	err = group.Wait()
	a.hangUp()
	if ctx.Err() != nil {
		return errors.Join(a.disk.write(a.now()), a.tables.write(a.now()))
	}
	return err
}

// Ready waits until the socket takes connections.
func (a *Agent) Ready(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("l5/agent: the socket %s is not open yet; is Run running? %w", a.config.Socket, context.Cause(ctx))
	}
}

// Target returns what the device's programs give as l5.Config.Target.
func (a *Agent) Target() string { return "unix://" + a.config.Socket }

// Register registers an instance on behalf of the program the agent is part of, and returns when that is visible to
// callers. The agent's stream is its lease. Device defaults to the agent's; a new instance starts with the given Share.
func (a *Agent) Register(ctx context.Context, instance l5.Instance) error {
	if err := instance.Check(); err != nil {
		return err
	}
	if instance.Device == "" {
		instance.Device = a.config.Device
	}
	a.locals.own(instance.Service, instance.Addr)
	a.disk.touch()
	return a.keeper.Put(ctx, instance.Proto())
}

// Deregister ends what Register began, and returns when callers no longer see it.
func (a *Agent) Deregister(ctx context.Context, service, addr string) error {
	a.locals.drop(service, addr)
	a.disk.touch()
	return a.keeper.Remove(ctx, service, addr)
}

// Drain takes new calls away from an instance that is registered here.
func (a *Agent) Drain(ctx context.Context, service, addr string) error {
	return a.keeper.Drain(ctx, service, addr)
}

// Outage is an address of the device at which nobody serves.
type Outage struct {
	Addr   string // host:port
	Reason string
	// Settling says that it serves again, but has ended so often of late that it is waited with: it stays out only as long as
	// its service has other instances.
	Settling bool
}

// Say tells the server which addresses of the device serve nobody, of all that is registered under its lease, whoever
// registered it: callers see that at once. It is always the whole list, and it replaces the last. It does not block; say it
// again from time to time, since it is not acknowledged and does not reach what another server registers later.
func (a *Agent) Say(outages []Outage) {
	message := &l5pb.Outages{}
	for _, o := range outages {
		message.Outages = append(message.Outages, &l5pb.Outage{Addr: o.Addr, Reason: strings.ToValidUTF8(o.Reason, "?"), Settling: o.Settling})
	}
	a.keeper.Say(message)
}

// Handler returns the pattern and the handler of the protocol, for those who serve it beside the socket. Whoever reaches it
// there counts as a program of the agent's own user: ask for a token first.
func (a *Agent) Handler() (string, http.Handler) {
	prefix, next := l5pbconnect.NewNameServiceHandler(&handler{agent: a}, connect.WithCompression("gzip", nil, nil), connect.WithReadMaxBytes(16<<20))
	return prefix, inbound.Handler(next)
}

func (a *Agent) onView(v view.View, change *l5pb.Delta) {
	if err := a.hub.Publish(v, change); err != nil {
		a.config.Logger.Error("l5/agent: a service's state is not passed on", "service", v.Service, "error", err)
	}
	a.health.update(v)
	a.lookups.change(v.Service)
	a.tables.touch(v.Service)
}

func (a *Agent) onVerdict(verdict *l5pb.Verdict) {
	a.callers.decide(verdict)
	a.lookups.change(verdict.GetService())
	a.tables.touch(verdict.GetService())
	a.disk.touch()
}

// onForget drops what nobody on this device calls any more.
func (a *Agent) onForget(service string) {
	a.health.forget(service)
	a.hub.Forget(service)
	a.lookups.change(service)
	a.tables.forget(service)
	a.disk.touch()
}

func (a *Agent) onSettings(settings *l5pb.Settings) {
	if err := a.hub.SetSettings(settings); err != nil {
		a.config.Logger.Error("l5/agent: a service's settings are not passed on", "service", settings.GetService(), "error", err)
	}
	a.tables.touch(settings.GetService())
}

func (a *Agent) onPlace(place *l5pb.Place) {
	if err := a.hub.SetPlace(place); err != nil {
		a.config.Logger.Error("l5/agent: programs are not told where the device is", "error", err)
	}
	a.tables.touchAll()
	a.disk.touch()
}

func (a *Agent) onState(connected bool, err error) {
	if connected {
		a.metrics.connected.Set(1)
		a.config.Logger.Info("l5/agent: connected", "upstream", a.config.Upstream)
		return
	}
	a.metrics.connected.Set(0)
	a.config.Logger.Warn("l5/agent: no connection upstream; serving what is known, connecting again", "upstream", a.config.Upstream, "error", err)
}

func (a *Agent) onHold(service string, have, get int) {
	a.config.Logger.Warn("l5/agent: the server lost its history and too many instances with it; what was known stays in use for up to a minute",
		"service", service, "known", have, "pushed", get)
}
