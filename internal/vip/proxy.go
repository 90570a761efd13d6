package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ProxyConfig of a Proxy. A zero field means its default.
type ProxyConfig struct {
	// DialTimeout bounds the connection to a real server. Default: 2 s.
	DialTimeout time.Duration
	// MinDown and MaxDown bound how long a server that refused is passed over. Default: 200 ms and 5 s.
	MinDown, MaxDown time.Duration
	// Drain is how long connections of a removed server may go on. Default: 30 s.
	Drain time.Duration
	// Quiet is how long a connection of a removed server may be silent after the server's last word before it
	// counts as done. Default: 500 ms.
	Quiet time.Duration
	// Logger gets a line per change. Default: none.
	Logger *slog.Logger
	// Metrics gets zhiyun_vip_... Default: none.
	Metrics prometheus.Registerer
}

// Proxy is a TCP proxy for virtual addresses of this machine. It is a VIP.
type Proxy struct {
	config      ProxyConfig
	log         *slog.Logger
	connections prometheus.Gauge
	refusals    prometheus.Counter
	ready       chan struct{} // closed when Run serves
	ended       chan struct{} // closed when Run stops serving
	work        sync.WaitGroup

	mu      sync.Mutex // guards what follows
	began   bool
	over    bool
	fronts  map[string]*front
	changed chan struct{} // closed and replaced when a server is gone
}

var _ VIP = (*Proxy)(nil)

// front is one virtual address.
type front struct {
	vip      string
	listener net.Listener
	pool     pool
	pipes    map[*pipe]struct{}
}

// ErrClosed says that Run has returned.
var ErrClosed = errors.New("vip: the proxy has ended; call Run on a new one")

// NewProxy checks config. The proxy listens nowhere before Add.
func NewProxy(config ProxyConfig) (*Proxy, error) {
	var faults []error
	for _, d := range []struct {
		name    string
		value   *time.Duration
		instead time.Duration
	}{
		{"DialTimeout", &config.DialTimeout, 2 * time.Second},
		{"MinDown", &config.MinDown, 200 * time.Millisecond},
		{"MaxDown", &config.MaxDown, 5 * time.Second},
		{"Drain", &config.Drain, 30 * time.Second},
		{"Quiet", &config.Quiet, 500 * time.Millisecond},
	} {
		if *d.value < 0 {
			faults = append(faults, fmt.Errorf("%w: %s %v is negative; leave it zero for %v", ErrInvalid, d.name, *d.value, d.instead))
		}
		if *d.value == 0 {
			*d.value = d.instead
		}
	}
	p := &Proxy{
		config: config, log: config.Logger,
		ready: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}),
		fronts:      map[string]*front{},
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "zhiyun_vip_connections", Help: "Connections through the built-in proxy."}),
		refusals:    prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_vip_refusals_total", Help: "Connections that a real server refused."}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if config.Metrics != nil && len(faults) == 0 {
		faults = append(faults, config.Metrics.Register(p.connections), config.Metrics.Register(p.refusals))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return p, nil
}

// Run serves until ctx ends, then closes every virtual address and connection. It may be called once.
func (p *Proxy) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.began {
		p.mu.Unlock()
		return fmt.Errorf("vip: Run was called before: %w", ErrClosed)
	}
	p.began = true
	p.mu.Unlock()
	close(p.ready)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			p.sweep(time.Now())
		}
	}
	p.mu.Lock()
	p.over = true
	for _, f := range p.fronts {
		f.listener.Close()
		for c := range f.pipes {
			c.Close()
		}
	}
	p.mu.Unlock()
	close(p.ended)
	p.work.Wait()
	return nil
}

// Add implements VIP. It waits for Run. The first server has the proxy listen on the virtual address.
func (p *Proxy) Add(ctx context.Context, vip, server string, weight int) error {
	if err := errors.Join(checkVIP(vip), checkServer(server, weight)); err != nil {
		return err
	}
	if err := p.await(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return ErrClosed
	}
	f := p.fronts[vip]
	if f == nil {
		listener, err := net.Listen("tcp", vip)
		if err != nil {
			return fmt.Errorf("vip: virtual address %s: %w; it must be an address of this machine that is free", vip, err)
		}
		f = &front{vip: vip, listener: listener, pool: pool{minDown: p.config.MinDown, maxDown: p.config.MaxDown}, pipes: map[*pipe]struct{}{}}
		p.fronts[vip] = f
		p.work.Go(func() { p.accept(f) })
	}
	f.pool.add(server, weight)
	p.broadcast() // a Remove that waits for it must know
	p.log.Info("real server added", "vip", vip, "server", server, "weight", weight)
	return nil
}

func checkVIP(vip string) error {
	if err := checkAddr(vip); err != nil {
		return fmt.Errorf("%w: virtual address %q: %w; give host:port", ErrInvalid, vip, err)
	}
	return nil
}

// Remove implements VIP. With the last server the virtual address is closed.
func (p *Proxy) Remove(ctx context.Context, vip, server string) error {
	if err := p.await(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	f := p.fronts[vip]
	if f == nil || f.pool.find(server) == nil {
		p.mu.Unlock()
		return nil
	}
	target := f.pool.find(server)
	f.pool.drain(time.Now(), server, p.config.Drain)
	p.mu.Unlock()
	p.log.Info("real server draining", "vip", vip, "server", server)
	for {
		p.mu.Lock()
		gone, back, changed := f.pool.find(server) != target, !target.draining, p.changed
		p.mu.Unlock()
		switch {
		case gone:
			return nil
		case back:
			return fmt.Errorf("vip: remove %s from %s: it was added again meanwhile", server, vip)
		}
		select {
		case <-changed:
		case <-p.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("vip: remove %s from %s: connections are still open: %w", server, vip, ctx.Err())
		}
	}
}

// Servers implements VIP.
func (p *Proxy) Servers(_ context.Context, vip string) ([]Server, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.fronts[vip]; f != nil {
		return f.pool.servers(), nil
	}
	return []Server{}, nil
}

func (p *Proxy) await(ctx context.Context) error {
	select {
	case <-p.ended:
		return ErrClosed
	default:
	}
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("vip: wait for Run: %w", ctx.Err())
	}
}

// sweep ends what draining servers have left, and removes those that have nothing left.
func (p *Proxy) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := false
	for vip, f := range p.fronts {
		for c := range f.pipes {
			if c.server.draining && (c.Quiet(now, p.config.Quiet) || !now.Before(c.server.drainUntil)) {
				c.Close()
			}
		}
		for _, m := range f.pool.sweep(now) {
			news = true
			p.log.Info("real server removed", "vip", vip, "server", m.addr, "connections", m.connections)
		}
		if len(f.pool.members) == 0 {
			f.listener.Close()
			delete(p.fronts, vip)
		}
	}
	if news {
		p.broadcast()
	}
}

// broadcast wakes those who wait for a server to be gone. The caller holds mu.
func (p *Proxy) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}
