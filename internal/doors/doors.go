// Package doors opens the doors of an agent that a command was told to open: the commands import it, the agent does not.
package doors

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/door/dns"
	"github.com/zhiyun-ops/zhiyun/l5/door/json"
	"github.com/zhiyun-ops/zhiyun/l5/door/proxy"
	"github.com/zhiyun-ops/zhiyun/l5/door/sd"
	"github.com/zhiyun-ops/zhiyun/l5/door/xds"
	"github.com/zhiyun-ops/zhiyun/l5/l5net"
)

// Config says which doors are open. An empty address is a door that is shut; JSON on the agent's own socket is always open.
type Config struct {
	Caller    string // on whose behalf; default: door
	DNS       string // address
	SD        string // address
	XDS       string // address, or unix:///path
	JSON      string // address on loopback
	TokenFile string // of JSON; required with it, made if it is not there
	Proxy     string // SERVICE=ADDRESS,...
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// Opens reports whether any door is opened beside the one on the agent's socket.
func (c Config) Opens() bool {
	return c.DNS != "" || c.SD != "" || c.XDS != "" || c.JSON != "" || c.Proxy != ""
}

// Option is a field of Config as a flag.
type Option struct {
	Name, Usage string
	Value       *string
}

// Options are the flags that set c, in order.
func (c *Config) Options() []Option {
	return []Option{
		{"door-caller", "`MODULE` on whose behalf the doors look up and call; zhiyun agent wants it, and one that is placed on its device (default elsewhere: door)", &c.Caller},
		{"dns", "`ADDRESS` of the DNS door: A, AAAA and SRV of SERVICE.l5, as 127.0.0.1:5300", &c.DNS},
		{"sd", "`ADDRESS` of Prometheus' HTTP service discovery, as 127.0.0.1:9301", &c.SD},
		{"xds", "`ADDRESS` of the xDS door for gRPC without a proxy, as unix:///run/zhiyun/xds.sock or 127.0.0.1:9302", &c.XDS},
		{"json", "loopback `ADDRESS` of the JSON and Connect door, as 127.0.0.1:9303; the agent's socket always has it", &c.JSON},
		{"json-token-file", "`FILE` with the token for --json; made if it is not there", &c.TokenFile},
		{"proxy", "TCP addresses of services: `SERVICE=ADDRESS`, separated by commas", &c.Proxy},
	}
}

// Flags makes flags of the options with flag.StringVar or the like.
func (c *Config) Flags(add func(value *string, name, unset, usage string)) {
	for _, o := range c.Options() {
		add(o.Value, o.Name, "", o.Usage)
	}
}

// Serve runs an agent and its doors until ctx ends.
func Serve(ctx context.Context, config agent.Config, open Config) error {
	a, err := agent.New(config)
	if err != nil {
		return err
	}
	d, err := New(a, open)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(inner) })
	group.Go(func() error { return d.Run(inner) })
	return group.Wait()
}

// Doors are those of one agent.
type Doors struct {
	runs []func(context.Context) error
}

// New makes the doors of a, which must not run yet. It reports all faults at once; a token file is made if need be.
func New(a *agent.Agent, c Config) (*Doors, error) {
	if c.Caller == "" {
		c.Caller = "door"
	}
	client, err := l5.New(l5.Config{Target: a.Target(), Caller: c.Caller, Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	d := &Doors{runs: []func(context.Context) error{client.Run}}
	err = errors.Join(d.json(a, client, c), d.lookups(a, c), d.proxy(client, c))
	if err != nil {
		return nil, fmt.Errorf("doors: %w", err)
	}
	return d, nil
}

func (d *Doors) json(a *agent.Agent, client *l5.Client, c Config) error {
	config := json.Config{Names: a, Caller: c.Caller, Router: client, Listen: c.JSON, Logger: c.Logger, Metrics: c.Metrics}
	if c.JSON != "" {
		token, err := readToken(c.TokenFile)
		if err != nil {
			return err
		}
		config.Token = token
		_, config.Protocol = a.Handler()
	}
	opened, err := json.New(config)
	if err != nil {
		return err
	}
	a.Handle("/v1/", opened.Handler())
	d.runs = append(d.runs, opened.Run)
	return nil
}

// lookups are the doors that only look up.
func (d *Doors) lookups(a *agent.Agent, c Config) error {
	var errs []error
	add := func(run func(context.Context) error, err error) {
		errs = append(errs, err)
		d.runs = append(d.runs, run)
	}
	if c.DNS != "" {
		opened, err := dns.New(dns.Config{Names: a, Caller: c.Caller, Listen: c.DNS, Logger: c.Logger, Metrics: c.Metrics})
		add(opened.Run, err)
	}
	if c.SD != "" {
		opened, err := sd.New(sd.Config{Names: a, Caller: c.Caller, Listen: c.SD, Logger: c.Logger, Metrics: c.Metrics})
		add(opened.Run, err)
	}
	if c.XDS != "" {
		opened, err := xds.New(xds.Config{Names: a, Caller: c.Caller, Listen: c.XDS, Logger: c.Logger, Metrics: c.Metrics})
		add(opened.Run, err)
	}
	return errors.Join(errs...)
}

func (d *Doors) proxy(client *l5.Client, c Config) error {
	if c.Proxy == "" {
		return nil
	}
	services := make(map[string]string)
	for _, pair := range strings.Split(c.Proxy, ",") {
		service, addr, ok := strings.Cut(pair, "=")
		if !ok || services[service] != "" {
			return fmt.Errorf("proxy %q: want SERVICE=ADDRESS, separated by commas, each service once", c.Proxy)
		}
		services[service] = addr
	}
	opened, err := proxy.New(proxy.Config{Dialer: l5net.NewDialer(client), Services: services, Logger: c.Logger, Metrics: c.Metrics})
	if err != nil {
		return err
	}
	d.runs = append(d.runs, opened.Run)
	return nil
}

// Run serves until ctx ends, or until a door fails. The agent must run, too.
func (d *Doors) Run(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	for _, run := range d.runs {
		group.Go(func() error { return run(inner) })
	}
	return group.Wait()
}

// readToken reads the file, which must be its owner's alone, or makes it.
func readToken(path string) (string, error) {
	if path == "" {
		return "", errors.New("json: loopback is not trust: name a file for the token with --json-token-file")
	}
	made, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		_, err = made.WriteString(rand.Text() + "\n")
		if err = errors.Join(err, made.Close()); err != nil {
			return "", fmt.Errorf("make the token file: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("make the token file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s has mode %o: others can read it; chmod 600 it, and remove it first if they did", path, info.Mode().Perm())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}
