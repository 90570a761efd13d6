// Package sd tells Prometheus what to scrape: its HTTP service discovery, from the name service.
//
//	d, err := sd.New(sd.Config{Names: agent, Caller: "ops.metrics", Listen: "127.0.0.1:9301"})
//	group.Go(func() error { return d.Run(ctx) })
//
//	scrape_configs:
//	  - job_name: shop
//	    http_sd_configs:
//	      - url: http://127.0.0.1:9301/sd?service=shop.cart&service=shop.pay
//	        refresh_interval: 5s
//
// All registered instances are targets, those that take no calls as well: what is down is to be seen. Labels are
// __meta_zhiyun_service, _device, _module, _state (up, draining or down), _owner, _site, _city, and __meta_zhiyun_label_NAME for the instance's
// own. While a service is not known, or the caller may not know it, the answer is an error: Prometheus then keeps the
// targets that it has.
package sd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// Config of a Door. A zero field means its documented default.
type Config struct {
	// Names is where services are looked up. Required.
	Names door.Names
	// Caller is on whose behalf: grants are decided by it. Required.
	Caller string
	// Listen is the TCP address: an IP address and a port. Required.
	Listen string
	// Anyone lets Listen be an address off loopback.
	Anyone bool
	// Hosts are names by which clients may call the door, beside its addresses. Default: none.
	Hosts []string
	// Token must be borne by each request. Default: none is asked for.
	Token string
	// Services are told to those who name none. Default: none.
	Services []string
	// MaxServices bounds the services of one request, and how many different ones are looked up within five minutes.
	// Default: 1024.
	MaxServices int
	// MaxConns bounds connections. Default: 64.
	MaxConns int
	// Wait is how long the first request for a service waits for it. Default: 3 s.
	Wait time.Duration
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes zhiyun_l5_door_sd_... Default: none.
	Metrics prometheus.Registerer
}

// Door is an HTTP server for Prometheus.
type Door struct {
	config  Config
	names   door.Names
	started atomic.Bool
	ready   chan struct{} // closed when addr is set
	addr    net.Addr
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
	if err := door.CheckListen(config.Listen, config.Anyone); err != nil {
		faults = append(faults, fmt.Errorf("Listen: %w", err))
	}
	for _, service := range config.Services {
		if err := l5.CheckService(service); err != nil {
			faults = append(faults, fmt.Errorf("Services: %w", err))
		}
	}
	if config.MaxServices < 0 || config.MaxConns < 0 || config.Wait < 0 {
		faults = append(faults, fmt.Errorf("MaxServices is %d, MaxConns %d, Wait %v: give none that is negative", config.MaxServices, config.MaxConns, config.Wait))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("l5/door/sd: config: %w", err)
	}
	config.MaxServices = cmp.Or(config.MaxServices, 1024)
	config.MaxConns = cmp.Or(config.MaxConns, 64)
	config.Wait = cmp.Or(config.Wait, 3*time.Second)
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	d := &Door{
		config: config, names: door.Bound(config.Names, config.MaxServices, 5*time.Minute), ready: make(chan struct{}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_l5_door_sd_answers_total", Help: "Answers by HTTP status."}, []string{"code"}),
	}
	if config.Metrics != nil {
		if err := config.Metrics.Register(d.answers); err != nil {
			return nil, fmt.Errorf("l5/door/sd: register metrics: %w", err)
		}
	}
	return d, nil
}

// Run serves until ctx ends, and returns nil then. It is called once.
func (d *Door) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("l5/door/sd: Run was called twice; make a new door")
	}
	listener, err := door.ListenHTTP(d.config.Listen, d.config.MaxConns)
	if err != nil {
		return fmt.Errorf("l5/door/sd: %w", err)
	}
	d.addr = listener.Addr()
	close(d.ready)
	d.config.Logger.Info("l5/door/sd: serving", "addr", d.addr.String())
	return transport.NewServer(door.Attend(d.Handler())).Serve(ctx, listener, time.Second)
}

// Addr waits until the door listens and returns where.
func (d *Door) Addr(ctx context.Context) (net.Addr, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("l5/door/sd: not listening yet; is Run running? %w", context.Cause(ctx))
	}
}

// Handler answers GET /sd?service=ID&service=ID; for those who serve it themselves.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sd", d.serve)
	return door.Guard(mux, d.config.Token, d.config.Hosts)
}

// group is an entry of Prometheus's format.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	services := r.URL.Query()["service"]
	if len(services) == 0 {
		services = d.config.Services
	}
	groups, code, err := d.groups(r.Context(), services)
	d.answers.WithLabelValues(fmt.Sprint(code)).Inc()
	door.Hurry(w)
	if err != nil {
		door.Fail(w, code, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(groups) // a client that is gone
}

// groups looks all services up; one that fails, fails all, so that Prometheus keeps what it has.
func (d *Door) groups(ctx context.Context, services []string) ([]group, int, error) {
	switch {
	case len(services) == 0:
		return nil, http.StatusBadRequest, errors.New("name a service: /sd?service=shop.cart")
	case len(services) > d.config.MaxServices:
		return nil, http.StatusBadRequest, fmt.Errorf("%d services: name at most %d", len(services), d.config.MaxServices)
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Wait)
	defer cancel()
	out := []group{}
	for _, service := range services {
		if err := l5.CheckService(service); err != nil {
			return nil, http.StatusBadRequest, err
		}
		view, _, err := d.names.Lookup(ctx, d.config.Caller, service)
		switch {
		case errors.Is(err, l5.ErrDenied):
			return nil, http.StatusForbidden, err
		case err != nil:
			return nil, http.StatusServiceUnavailable, err
		}
		for _, m := range view.Members {
			out = append(out, group{Targets: []string{m.Addr}, Labels: labels(service, m)})
		}
	}
	return out, http.StatusOK, nil
}

func labels(service string, m agent.Member) map[string]string {
	const meta = "__meta_zhiyun_"
	out := map[string]string{meta + "service": service, meta + "state": m.State.String()}
	if m.Down != "" {
		out[meta+"state"] = "down"
	}
	for name, value := range map[string]string{"device": m.Device, "module": m.Module, "owner": m.Owner, "site": m.Site, "city": m.City} {
		if value != "" {
			out[meta+name] = value
		}
	}
	names := make([]string, 0, len(m.Labels))
	for name := range m.Labels {
		names = append(names, name)
	}
	slices.Sort(names) // of two that become one, always the same wins
	for _, name := range names {
		out[meta+"label_"+plain(name)] = strings.ToValidUTF8(m.Labels[name], "\ufffd")
	}
	return out
}

// plain makes a label's name of any text.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}
