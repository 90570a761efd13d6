package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/worker"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/doors"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5agent "github.com/zhiyun-ops/zhiyun/l5/agent"
)

// Run is the agent: it serves its device until ctx ends, or until a part of it fails for good. ErrRefused says that the
// server does not take its credential. That the server cannot be reached is no failure: routes are served from memory and disk, processes are kept, results wait.
// The device's processes outlive the agent; the next one adopts them.
func Run(ctx context.Context, config Config) error {
	config, err := config.filled()
	if err != nil {
		return err
	}
	for _, dir := range []string{config.Root, filepath.Dir(config.run("x")), config.state("worker")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	unlock, err := lockRoot(config.state(""))
	if err != nil {
		return err
	}
	defer unlock()
	a := &parts{config: config, credential: newCredential(config), registry: prometheus.NewRegistry()}
	if err := a.prove(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := a.assemble(); err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	a.routes.start = func(run func(context.Context) error) {
		group.Go(func() error { return run(inner) })
	}
	if err := a.routes.restore(config.Root); err != nil {
		return err
	}
	for _, run := range a.runs {
		group.Go(func() error { return run(inner) })
	}
	config.Logger.Info("agent serves", "device", config.Device, "addr", config.Addr, "server", config.Server)
	err = group.Wait()
	a.close()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// parts are what an agent is made of.
type parts struct {
	config     Config
	credential *credential
	dial       transport.DialConfig  // of everything here that calls the server
	tokenFile  string                // the same for the device's tools, which are processes
	files      transport.ClientFiles // the same
	registry   *prometheus.Registry
	routes     *routes
	runs       []func(context.Context) error
	ready      []func(context.Context) error // end once a part serves
	closers    []func()
}

// prove finds, or obtains, what the agent proves itself by. Over a unix socket its owner needs nothing.
func (a *parts) prove(ctx context.Context) (err error) {
	if a.config.TokenFile != "" {
		if _, err := auth.ReadToken(a.config.TokenFile); err != nil {
			return err
		}
	} else if a.config.Enrol != "" || !strings.HasPrefix(a.config.Server, "unix:") {
		if err := a.credential.obtain(ctx); err != nil {
			return err
		}
		if err := a.credential.accepted(ctx); errors.Is(err, ErrRefused) {
			return err
		} // a server that does not answer now may later
	}
	if a.tokenFile, a.files, err = a.credential.files(); err != nil {
		return err
	}
	a.dial, err = a.credential.dial()
	return err
}

func (a *parts) close() {
	for _, closer := range a.closers {
		closer()
	}
}

// assemble makes all parts; it starts none.
func (a *parts) assemble() error {
	config := a.config
	notice, err := newOutages(config, a.registry)
	if err != nil {
		return fmt.Errorf("agent: metrics: %w", err)
	}
	supervisor, err := supervise.New(supervise.Config{
		Dir: config.state("supervise"), Logger: config.Logger, Metrics: a.registry, OnChange: notice.changed,
	})
	if err != nil {
		return err
	}
	eye, err := newStanding(a.credential, a.registry)
	if err != nil {
		return fmt.Errorf("agent: metrics: %w", err)
	}
	names, err := l5agent.New(l5agent.Config{
		Upstream: config.Server, Device: config.Device, Socket: config.RoutesSocket(),
		SnapshotFile: config.state("l5.snapshot"), Token: a.dial.Token, TLS: a.dial.TLS, Logger: config.Logger, Metrics: a.registry,
		Prove: prover{supervisor: supervisor, believe: config.Believe}.Prove,
	})
	if err != nil {
		return err
	}
	notice.supervisor, notice.say = supervisor, names.Say
	open := config.Doors
	open.Logger, open.Metrics = config.Logger, a.registry
	opened, err := doors.New(names, open)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.routes = &routes{target: names.Target(), clients: make(map[string]*l5.Client)}
	work, err := a.worker()
	if err != nil {
		return err
	}
	watch, declared, err := a.drift(supervisor)
	if err != nil {
		return err
	}
	a.ready = append(a.ready, supervisor.Ready, names.Ready) // what it keeps is adopted; programs get routes
	serve := device.ServeConfig{Path: config.DeviceSocket(), Supervisor: supervisor, Routes: a.routes, Logger: config.Logger}
	a.runs = append(a.runs, a.credential.run, eye.run, supervisor.Run, names.Run, notice.run, opened.Run, work.Run, declared.run, watch.Run, a.metrics,
		func(ctx context.Context) error { return device.Serve(ctx, serve) })
	return nil
}

// env is what the device's tools find in their environment.
func (a *parts) env() []string {
	return append(a.files.Env(),
		"ZHIYUN_ROOT="+a.config.Root, "ZHIYUN_AGENT="+a.config.DeviceSocket(), "ZHIYUN_SERVER="+a.config.Server,
		"ZHIYUN_TOKEN_FILE="+a.tokenFile, "ZHIYUN_DEVICE="+a.config.Device, "ZHIYUN_ADDR="+a.config.Addr,
		"ZHIYUN_L5=unix://"+a.config.RoutesSocket(), "ZHIYUN_SITE="+a.config.Site,
		"ZHIYUN_PORT_OFFSET="+strconv.Itoa(a.config.PortOffset),
	)
}

// worker runs the device's share of flows.
func (a *parts) worker() (*worker.Worker, error) {
	tools := flow.NewTools()
	for _, manifest := range wiring.DeviceTools(a.config.Exe) {
		tools.Exec(manifest)
	}
	if a.config.Tools != "" {
		if err := errors.Join(tools.Folders(a.config.Tools), tools.Err()); err != nil {
			return nil, fmt.Errorf("agent: Tools: %w", err)
		}
	}
	a.closers = append(a.closers, tools.Close)
	return worker.New(worker.Config{
		Target: a.config.Server, Others: a.config.FlowServers, Token: a.dial.Token, TLS: a.dial.TLS, Device: a.config.Device, Tools: tools,
		Dir: a.config.state("worker"), Env: a.env(), Logger: a.config.Logger,
	})
}

// drift watches that the device stays as declared.
func (a *parts) drift(supervisor *supervise.Supervisor) (*drift.Agent, *declaration, error) {
	config := a.config
	client, base, err := transport.Dial(a.dial)
	if err != nil {
		return nil, nil, err
	}
	blobs, err := device.NewHTTPBlobs(config.Server, a.dial.Token, a.dial.TLS)
	if err != nil {
		return nil, nil, err
	}
	a.closers = append(a.closers, client.CloseIdleConnections, blobs.Close)
	declared := &declaration{client: controlpbconnect.NewAgentServiceClient(client, base), device: config.Device, logger: config.Logger, changed: make(chan struct{}, 1)}
	repairer := &repairs{supervisor: supervisor, env: device.Env{
		Root: config.Root, Device: config.Device, Addr: config.Addr, PortOffset: config.PortOffset, Blobs: blobs, Logger: config.Logger,
	}}
	lister := drift.Named(drift.Proc(config.Root), named(supervisor))
	ports := drift.Ports(config.Addr, lister)
	if config.PortOffset != 0 {
		ports = drift.OwnPorts(config.Addr, lister)
	}
	watch, err := drift.New(drift.Config{
		Device: config.Device, Desired: declared, Repairer: repairer, Reporter: declared,
		Collectors: []drift.Collector{drift.Files(config.Root), drift.Processes(lister), ports},
		Rescan:     config.Rescan, Poll: config.Poll, Settle: config.Settle, Logger: config.Logger, Metrics: a.registry,
	})
	return watch, declared, err
}

// metrics serves /healthz, /readyz and /metrics to this host, if asked to.
func (a *parts) metrics(ctx context.Context) error {
	if a.config.Listen == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := net.Listen("tcp", a.config.Listen)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return transport.NewServer(health(a.registry, a.ready...)).Serve(ctx, listener, time.Second)
}

// health answers ready once all of ready return without an error, each within a second.
func health(registry *prometheus.Registry, ready ...func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		for _, wait := range ready {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			err := wait(ctx)
			cancel()
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
