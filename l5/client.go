package l5

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/lease"
	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Client routes the calls of one process. Its methods are safe for concurrent use.
//
//	       Run                               ctx ends
//	new ---------> running (connected or not) ---------> ended: routes go on from what is known, health stands still
type Client struct {
	config   Config
	id       string // of this run of the process
	wire     l5pbconnect.NameServiceClient
	hangUp   func() // closes the connections of wire
	link     *link.Link
	keeper   *lease.Keeper
	metrics  *metrics
	running  atomic.Bool
	services atomic.Pointer[map[string]*service] // copied on write, under mu
	near     [nearSlots]atomic.Pointer[service]  // some of services; written under mu
	place    atomic.Pointer[rule.Place]          // as the agent tells; nil: it has not

	mu     sync.Mutex
	ctx    context.Context // guarded by mu; of Run, nil outside
	probes sync.WaitGroup  // Add under mu while ctx is set

	batch *l5pb.ReportRequest // owned by the reporting goroutine; not acknowledged
	seq   uint64              // owned by the reporting goroutine
}

// New returns a client. It reports all faults of config at once, and connects in Run.
func New(config Config) (*Client, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	c := &Client{config: config, id: uid.New()}
	c.services.Store(&map[string]*service{})
	if c.wire, c.hangUp, err = dial(config); err != nil {
		return nil, fmt.Errorf("l5: config: Target: %w", err)
	}
	host, _ := os.Hostname()
	c.link = link.New(link.Config{
		Client: c.wire, Peer: fmt.Sprintf("%s@%s/%d", config.Caller, host, os.Getpid()),
		Device: config.Device, Dial: func() (l5pbconnect.NameServiceClient, func(), error) { return dial(config) },
		OnView: c.onView, OnHealth: c.onHealth, OnVerdict: c.onVerdict, OnSettings: c.onSettings, OnPlace: c.onPlace, OnAsk: c.onAsk,
		OnState: c.onState, OnResync: c.onResync, OnHold: c.onHold, Now: config.now, Logger: config.Logger,
	})
	c.keeper = lease.New(lease.Config{Client: c.wire, Owner: c.id, Logger: config.Logger})
	if c.metrics, err = newMetrics(config.Metrics, c); err != nil {
		return nil, fmt.Errorf("l5: register metrics: %w", err)
	}
	return c, nil
}

// dial returns a client of the name service with connections of its own, and what closes those.
func dial(config Config) (l5pbconnect.NameServiceClient, func(), error) {
	client, base, err := transport.Dial(transport.DialConfig{
		Target: config.Target, Token: config.Token, TLS: config.TLS, Direct: []string{l5pbconnect.NameServiceWatchProcedure},
	})
	if err != nil {
		return nil, nil, err
	}
	return l5pbconnect.NewNameServiceClient(client, base, connect.WithAcceptCompression("gzip", nil, nil)), client.CloseIdleConnections, nil
}

// Run keeps the client connected, reports outcomes and tends to health until ctx ends. Then it sends the last report
// and returns nil. It may be called once. While the name service is gone, routes go on from what is known.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("l5: Run was called twice; one call runs the client for good")
	}
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return c.link.Run(inner) })
	group.Go(func() error { return c.lease(inner) })
	group.Go(func() error { return c.tend(inner) })
	group.Go(func() error { return c.watch(inner) })
	group.Go(func() error { return c.report(inner) })
	err := group.Wait()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.probes.Wait()
	c.hangUp()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// spawn runs f in a goroutine that Run waits for; outside Run it does nothing and returns false.
func (c *Client) spawn(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := c.ctx
	if ctx != nil {
		c.probes.Go(func() { f(ctx) })
	}
	return ctx != nil
}

// service returns the named service, subscribed to.
func (c *Client) service(name string) *service {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.services.Load()
	if s := old[name]; s != nil {
		return s
	}
	next := maps.Clone(old)
	s := newService(c, name)
	s.number = len(old)
	next[name] = s
	c.services.Store(&next)
	c.near[nearSlot(name)].CompareAndSwap(nil, s)
	c.link.Subscribe(c.config.Caller, name)
	return s
}

// tend moves the health of all services along.
func (c *Client) tend(ctx context.Context) error {
	ticker := time.NewTicker(c.config.TickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, s := range *c.services.Load() {
				s.openGuard()
			}
			return ctx.Err()
		case <-ticker.C:
			now := c.config.now()
			for _, s := range *c.services.Load() {
				s.tick(now)
			}
		}
	}
}

func (c *Client) onView(v view.View, _ *l5pb.Delta) {
	if s := (*c.services.Load())[v.Service]; s != nil {
		s.update(v, c.config.now())
	}
}

func (c *Client) onSettings(settings *l5pb.Settings) {
	if s := (*c.services.Load())[settings.GetService()]; s != nil {
		s.settings(settings)
	}
}

func (c *Client) onPlace(place *l5pb.Place) {
	told := rule.Place{Device: place.GetDevice(), Site: place.GetSite(), City: place.GetCity()}
	if old := c.place.Swap(&told); old != nil && *old == told {
		return
	}
	c.config.Logger.Info("l5: the name service says where this is", "device", told.Device, "site", told.Site, "city", told.City)
	for _, s := range *c.services.Load() {
		s.relocate()
	}
}

// onAsk says what this process makes of a service, to the agent that asks.
func (c *Client) onAsk(service string) []byte {
	text, err := json.Marshal(c.Explain(service))
	if err != nil {
		c.config.Logger.Error("l5: an explanation is not given", "service", service, "error", err)
	}
	return text
}

func (c *Client) onVerdict(verdict *l5pb.Verdict) {
	if s := (*c.services.Load())[verdict.GetService()]; s != nil && verdict.GetCaller() == c.config.Caller {
		s.verdict(verdict)
	}
}

func (c *Client) onState(connected bool, err error) {
	if connected {
		c.metrics.connected.Set(1)
		c.config.Logger.Info("l5: connected to the name service", "target", c.config.Target)
		return
	}
	c.metrics.connected.Set(0)
	c.adviceEnds()
	c.config.Logger.Warn("l5: no connection to the name service; routes go on as they are, connecting again", "target", c.config.Target, "error", err)
}

func (c *Client) onResync(service string) {
	c.metrics.resyncs.Inc()
	c.config.Logger.Info("l5: a gap in the stream; asking for the whole state", "service", service)
}

func (c *Client) moved(e Event) {
	if e.To == balance.Ejected && e.From != balance.Probing {
		c.metrics.ejections.Inc()
	}
	c.config.Logger.Info("l5: instance", "service", e.Service, "addr", e.Addr, "from", e.From.String(), "to", e.To.String(), "reason", e.Reason)
	if c.config.OnEvent != nil {
		c.config.OnEvent(e)
	}
	if c.config.Observer != nil {
		c.config.Observer.Moved(e)
	}
}

func (c *Client) onHold(service string, have, get int) {
	c.config.Logger.Warn("l5: the name service lost its history and too many instances with it; what was known stays in use for up to a minute",
		"service", service, "known", have, "pushed", get)
}
