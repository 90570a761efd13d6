package json

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// Router picks; *l5.Client is one. Its caller should be Config.Caller.
type Router interface {
	Route(ctx context.Context, service string) (l5.Route, error)
}

// Config of a Door. A zero field means its documented default.
type Config struct {
	// Names is where services are looked up. Required.
	Names door.Names
	// Caller is on whose behalf: grants are decided by it. Required.
	Caller string
	// Router picks for /route. Default: none, and routing is refused.
	Router Router
	// Listen is a TCP address: an IP address of loopback and a port. Default: none; Handler alone.
	Listen string
	// Token must be borne by each request on Listen, 16 bytes at least. Required with Listen.
	Token string
	// Hosts are names by which clients may call Listen, beside its addresses. Default: none.
	Hosts []string
	// Protocol is served on Listen as well, for any path but /v1/: the handler of agent.Handler. Default: none.
	Protocol http.Handler
	// MaxServices bounds how many different services are looked up within five minutes. Default: 1024.
	MaxServices int
	// MaxConns bounds connections on Listen, MaxWatches the long polls and event streams of both. Default: 256, 1024.
	MaxConns, MaxWatches int
	// MaxOpen bounds the picks without an outcome, OpenFor how long one may be. Default: 10,000 and 1 min.
	MaxOpen int
	OpenFor time.Duration
	// Wait is how long the first request for a service waits for it. Default: 3 s.
	Wait time.Duration
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes zhiyun_l5_door_json_... Default: none.
	Metrics prometheus.Registerer
}

// Door is an HTTP server.
type Door struct {
	config  Config
	names   door.Names
	open    *open
	watches atomic.Int64
	started atomic.Bool
	ready   chan struct{} // closed when addr is set
	addr    net.Addr
	ending  chan struct{} // closed when Run ends: watches end
	answers *prometheus.CounterVec
}

// New reports all faults of config at once, and opens nothing.
func New(config Config) (*Door, error) {
	var faults []error
	if config.Names == nil {
		faults = append(faults, errors.New("Names is nil: give the device's agent, or door.ByClient"))
	}
	if config.Caller == "" {
		faults = append(faults, errors.New("Caller is empty: name the module on whose behalf services are looked up"))
	}
	if config.Listen != "" {
		if err := door.CheckListen(config.Listen, false); err != nil {
			faults = append(faults, fmt.Errorf("Listen: %w", err))
		}
		if len(config.Token) < 16 {
			faults = append(faults, fmt.Errorf("Token has %d bytes: any local program can reach Listen; give it a secret of 16 bytes or more", len(config.Token)))
		}
	}
	for name, n := range map[string]int{"MaxServices": config.MaxServices, "MaxConns": config.MaxConns, "MaxWatches": config.MaxWatches, "MaxOpen": config.MaxOpen} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("%s is %d: give it 1 or more, or 0 for the default", name, n))
		}
	}
	if config.OpenFor < 0 || config.Wait < 0 {
		faults = append(faults, fmt.Errorf("OpenFor is %v and Wait %v: give none that is negative", config.OpenFor, config.Wait))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("l5/door/json: config: %w", err)
	}
	config.MaxServices, config.MaxConns = cmp.Or(config.MaxServices, 1024), cmp.Or(config.MaxConns, 256)
	config.MaxWatches, config.MaxOpen = cmp.Or(config.MaxWatches, 1024), cmp.Or(config.MaxOpen, 10_000)
	config.OpenFor, config.Wait = cmp.Or(config.OpenFor, time.Minute), cmp.Or(config.Wait, 3*time.Second)
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	d := &Door{
		config: config, names: door.Bound(config.Names, config.MaxServices, 5*time.Minute), open: newOpen(config.MaxOpen, config.OpenFor),
		ready: make(chan struct{}), ending: make(chan struct{}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_l5_door_json_answers_total", Help: "Answers by HTTP status."}, []string{"code"}),
	}
	if config.Metrics != nil {
		watches := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zhiyun_l5_door_json_watches", Help: "Long polls and event streams under way."}, func() float64 { return float64(d.watches.Load()) })
		picks := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zhiyun_l5_door_json_open_picks", Help: "Picks whose outcome is not told yet."}, func() float64 { return float64(d.open.len()) })
		if err := errors.Join(config.Metrics.Register(d.answers), config.Metrics.Register(watches), config.Metrics.Register(picks)); err != nil {
			return nil, fmt.Errorf("l5/door/json: register metrics: %w", err)
		}
	}
	return d, nil
}

// Run forgets picks without an outcome in time and serves Config.Listen, if one is given, until ctx ends; it then ends
// watches and returns nil. It is called once.
func (d *Door) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("l5/door/json: Run was called twice; make a new door")
	}
	defer d.open.end()
	stop := context.AfterFunc(ctx, func() { close(d.ending) })
	defer stop()
	if d.config.Listen == "" {
		d.open.run(ctx)
		return nil
	}
	listener, err := door.ListenHTTP(d.config.Listen, d.config.MaxConns)
	if err != nil {
		return fmt.Errorf("l5/door/json: %w", err)
	}
	d.addr = listener.Addr()
	close(d.ready)
	d.config.Logger.Info("l5/door/json: serving", "addr", d.addr.String())
	mux := http.NewServeMux()
	mux.Handle("/v1/", d.Handler())
	if d.config.Protocol != nil {
		mux.Handle("/", d.config.Protocol)
	}
	swept := make(chan struct{})
	sweeping, end := context.WithCancel(ctx)
	go func() { // waited for below
		defer close(swept)
		d.open.run(sweeping)
	}()
	err = transport.NewServer(door.Guard(door.Attend(mux), d.config.Token, d.config.Hosts)).Serve(ctx, listener, time.Second)
	end()
	<-swept
	return err
}

// Addr waits until Run listens on Config.Listen and returns where.
func (d *Door) Addr(ctx context.Context) (net.Addr, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("l5/door/json: not listening yet; is Run running? %w", context.Cause(ctx))
	}
}
