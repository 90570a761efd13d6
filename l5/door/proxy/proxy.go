// Package proxy gives services TCP addresses on this machine: a program that knows only an address connects to it, and
// each connection goes to the instance that l5 routes it to.
//
//	d, err := proxy.New(proxy.Config{Dialer: l5net.NewDialer(client), Services: map[string]string{"shop.db": "127.0.0.1:5432"}})
//	group.Go(func() error { return d.Run(ctx) })
//
// A connection stays with its instance until one side ends it; the end of one direction is passed on and the other goes
// on. How it went is told as package l5net says; an instance that refuses is told of and another one tried before the client notices.
// Connections beyond Config.MaxConns of a service wait in the kernel's queue.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/relay"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// Dialer connects to services; *l5net.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, service string) (net.Conn, error)
}

// Config of a Door. A zero field means its documented default.
type Config struct {
	// Dialer connects to instances. Required.
	Dialer Dialer
	// Services are the TCP addresses to listen on, by service. Required.
	Services map[string]string
	// Anyone lets addresses be off loopback.
	Anyone bool
	// MaxConns bounds the connections of a service. Default: 1024.
	MaxConns int
	// DialTimeout bounds finding and reaching an instance. Default: 5 s.
	DialTimeout time.Duration
	// Idle is how long a connection may be silent. Default: 15 min.
	Idle time.Duration
	// Drain is how long connections may go on when Run ends. Default: 10 s.
	Drain time.Duration
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes zhiyun_l5_door_proxy_... Default: none.
	Metrics prometheus.Registerer
}

// Door is a TCP proxy.
type Door struct {
	config   Config
	started  atomic.Bool
	ready    chan struct{}       // closed when addrs is set
	addrs    map[string]net.Addr // by service
	open     prometheus.Gauge
	refused  *prometheus.CounterVec
	relaying sync.WaitGroup

	mu     sync.Mutex
	relays map[*relay.Relay]struct{} // guarded by mu; nil once all were broken off
}

// New reports all faults of config at once, and opens nothing.
func New(config Config) (*Door, error) {
	var faults []error
	if config.Dialer == nil {
		faults = append(faults, errors.New("Dialer is nil: give l5net.NewDialer of the device's client"))
	}
	if len(config.Services) == 0 {
		faults = append(faults, errors.New("Services is empty: name the services and their addresses"))
	}
	for service, addr := range config.Services {
		if err := errors.Join(l5.CheckService(service), door.CheckListen(addr, config.Anyone)); err != nil {
			faults = append(faults, fmt.Errorf("Services: %w", err))
		}
	}
	if config.MaxConns < 0 || config.DialTimeout < 0 || config.Idle < 0 || config.Drain < 0 {
		faults = append(faults, fmt.Errorf("MaxConns is %d, DialTimeout %v, Idle %v, Drain %v: give none that is negative", config.MaxConns, config.DialTimeout, config.Idle, config.Drain))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("l5/door/proxy: config: %w", err)
	}
	config.MaxConns, config.DialTimeout = cmp.Or(config.MaxConns, 1024), cmp.Or(config.DialTimeout, 5*time.Second)
	config.Idle, config.Drain = cmp.Or(config.Idle, 15*time.Minute), cmp.Or(config.Drain, 10*time.Second)
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	d := &Door{
		config: config, ready: make(chan struct{}), addrs: make(map[string]net.Addr), relays: make(map[*relay.Relay]struct{}),
		open:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "zhiyun_l5_door_proxy_connections", Help: "Connections through the proxy."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_l5_door_proxy_refused_total", Help: "Connections for which no instance was reached."}, []string{"service"}),
	}
	if config.Metrics != nil {
		if err := errors.Join(config.Metrics.Register(d.open), config.Metrics.Register(d.refused)); err != nil {
			return nil, fmt.Errorf("l5/door/proxy: register metrics: %w", err)
		}
	}
	return d, nil
}

// Run serves until ctx ends; then it accepts no more, lets connections go on for Config.Drain, and returns nil. It is
// called once.
func (d *Door) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("l5/door/proxy: Run was called twice; make a new door")
	}
	listeners := make(map[string]net.Listener)
	for _, service := range slices.Sorted(maps.Keys(d.config.Services)) {
		listener, err := door.Listen(d.config.Services[service], d.config.MaxConns)
		if err != nil {
			for _, opened := range listeners {
				opened.Close()
			}
			return fmt.Errorf("l5/door/proxy: listen for %s: %w", service, err)
		}
		listeners[service], d.addrs[service] = listener, listener.Addr()
		d.config.Logger.Info("l5/door/proxy: serving", "service", service, "addr", listener.Addr().String())
	}
	close(d.ready)
	var accepting sync.WaitGroup
	for service, listener := range listeners {
		accepting.Go(func() { d.accept(ctx, service, listener) })
	}
	ticker := time.NewTicker(max(d.config.Idle/8, 10*time.Millisecond))
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case now := <-ticker.C:
			d.sweep(now)
		case <-ctx.Done():
		}
	}
	for _, listener := range listeners {
		listener.Close()
	}
	accepting.Wait()
	cut := time.AfterFunc(d.config.Drain, d.breakOff)
	defer cut.Stop()
	d.relaying.Wait()
	return nil
}

// Addr waits until the door listens and returns where for a service.
func (d *Door) Addr(ctx context.Context, service string) (net.Addr, error) {
	select {
	case <-d.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("l5/door/proxy: not listening yet; is Run running? %w", context.Cause(ctx))
	}
	if addr := d.addrs[service]; addr != nil {
		return addr, nil
	}
	return nil, fmt.Errorf("l5/door/proxy: %q is not among Config.Services", service)
}

func (d *Door) accept(ctx context.Context, service string, listener net.Listener) {
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.config.Logger.Warn("l5/door/proxy: cannot accept a connection", "service", service, "error", err)
			pause := time.NewTimer(10 * time.Millisecond) // out of file descriptors, most likely: some are given back soon
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
			continue
		}
		d.relaying.Go(func() { d.serve(ctx, service, client) })
	}
}

// serve joins a client to an instance.
func (d *Door) serve(ctx context.Context, service string, client net.Conn) {
	defer client.Close()
	dialing, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.config.DialTimeout) // accepted is accepted
	server, err := d.config.Dialer.DialContext(dialing, "tcp", service)
	cancel()
	if err != nil {
		d.refused.WithLabelValues(service).Inc()
		d.config.Logger.Debug("l5/door/proxy: no instance was reached", "service", service, "error", err)
		return
	}
	defer server.Close()
	r := relay.New(client, server)
	if !d.add(r) {
		return
	}
	d.open.Inc()
	r.Run()
	d.open.Dec()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.relays, r)
}

func (d *Door) add(r *relay.Relay) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.relays == nil {
		return false
	}
	d.relays[r] = struct{}{}
	return true
}

// sweep ends connections that were silent for too long.
func (d *Door) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r := range d.relays {
		if r.Idle(now) >= d.config.Idle {
			r.Close()
		}
	}
}

// breakOff ends all connections, and those to come.
func (d *Door) breakOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r := range d.relays {
		r.Close()
	}
	d.relays = nil
}
