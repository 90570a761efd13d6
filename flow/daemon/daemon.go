// Package daemon is a flow engine with its store, its dispatcher and two APIs on one listener: what cmd/flow-server is made of.
//
// Documents (*.yaml) and manifests (*.json) are read from two folders when it starts.
//
// zhiyun.control.v1.FlowService is what the verbs of zhiyun call: zhiyun flow ... --server unix:///run/zhiyun/flow.sock, and zhiyun tool push, use, list and versions. All verbs on
// flows and on pushed tools work as with a whole server, --dry-run and short IDs among them, but those about triggers, notices and freezes, which need its record. A pushed tool comes
// in the place of a manifest of its name. Who did what goes into the histories of executions, and into the log. The other API is for programs without Connect; its paths, all JSON:
//
//	GET  /v1/flows                              the latest definitions
//	POST /v1/flows/NAME/executions?key=&by=&because=   starts with the body as parameters, answers {"id": ...}
//	GET  /v1/executions?flow=&state=&after=     a page of executions
//	GET  /v1/executions/ID                      one, with its steps
//	GET  /v1/executions/ID/events               its events as they come, one per line
//	POST /v1/executions/ID/VERB?by=&because=    cancel, pause, resume or retry
package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/flowapi"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Config of a Daemon.
type Config struct {
	// Listen is "unix:///run/zhiyun/flow.sock", opened with mode 0600, or "host:port" for TLS. Port 0 takes a free one. Required.
	Listen string
	// TLS is required for host:port, and has to demand client certificates.
	TLS *tls.Config
	// Data is the folder of the store, of pushed tools and of logs. Required, unless Store is given; without it no tool can be pushed.
	Data string
	// Store is a PostgreSQL database, as "postgres://zhiyun@db/flows", that several daemons may share: they take over from one that dies. A password belongs
	// into the file that PGPASSFILE names. Default: a file in Data, for this daemon alone.
	Store string
	// Flows is a folder of documents to save at the start. Default: none.
	Flows string
	// Manifests is a folder of tools' manifests. Default: none.
	Manifests string
	// Env is added to the environment of tools that run here, as NAME=value. Tools that keep files expect ZHIYUN_ROOT, the absolute path of a folder. Default: ZHIYUN_ROOT is
	// the folder root below Data, made if it is not there; none without Data.
	Env []string
	// Logger gets the engine's and the dispatcher's lines, and one for each order of a person. Default: none.
	Logger *slog.Logger
}

// Daemon is an engine with its listener.
type Daemon struct {
	config Config
	ready  chan struct{}
	addr   string // set before ready is closed
}

// New checks the config, reports all its faults, and opens nothing.
func New(config Config) (*Daemon, error) {
	var faults []error
	if !strings.HasPrefix(config.Listen, "unix:///") {
		_, _, err := net.SplitHostPort(config.Listen)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("Listen is %q: want unix:///path or host:port", config.Listen))
		case config.TLS == nil || config.TLS.ClientAuth != tls.RequireAndVerifyClientCert:
			faults = append(faults, errors.New("field TLS must be set and demand client certificates (tls.RequireAndVerifyClientCert) for host:port; use unix:///path on one machine"))
		}
	}
	if config.Data == "" && config.Store == "" {
		faults = append(faults, errors.New("field Data is empty: give the folder of the store"))
	}
	if config.Store != "" && !strings.HasPrefix(config.Store, "postgres://") && !strings.HasPrefix(config.Store, "postgresql://") {
		faults = append(faults, errors.New("field Store is not a postgres:// URL: only PostgreSQL holds flows of several daemons; leave it empty for a file in Data"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("flow/daemon: config: %w", err)
	}
	return &Daemon{config: config, ready: make(chan struct{})}, nil
}

// Addr waits until the daemon listens and returns what clients and workers give as their target.
func (d *Daemon) Addr(ctx context.Context) (string, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return "", fmt.Errorf("flow/daemon: not listening yet: %w", context.Cause(ctx))
	}
}

// Run reads the folders, listens and serves until ctx ends, then drains. It is called once.
func (d *Daemon) Run(ctx context.Context) error {
	tools := flow.NewTools()
	defer tools.Close()
	pushed, err := d.register(tools)
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	steps, err := d.open(ctx)
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	defer steps.Close()
	dispatcher, err := dispatch.New(dispatch.Config{Logger: d.config.Logger})
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	env, logs, err := d.folders()
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	engine, err := flow.New(flow.Config{Store: steps, Tools: tools, Remote: dispatcher, Env: env, LogDir: logs, Logger: d.config.Logger})
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	verbs, err := flowapi.New(flowapi.Config{Engine: engine, Tools: tools, ToolDevices: dispatcher.Tools, Shelf: pushed, Audit: d.audit})
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	if err := documents(ctx, d.config.Flows, engine, d.config.Logger); err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	listener, err := d.listen()
	if err != nil {
		return fmt.Errorf("flow/daemon: %w", err)
	}
	close(d.ready)
	mux := http.NewServeMux()
	mux.Handle(dispatcher.Handler())
	mux.Handle("/v1/", api(engine))
	verbs.Mount(mux)
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(inner) })
	group.Go(func() error { return transport.NewServer(mux).Serve(inner, listener, 2*time.Second) })
	return group.Wait()
}

// folders are what tools get in their environment, and where logs of attempts go.
func (d *Daemon) folders() (env []string, logs string, err error) {
	env = d.config.Env
	if d.config.Data == "" {
		return env, "", nil
	}
	data, err := filepath.Abs(d.config.Data)
	if err != nil {
		return nil, "", err
	}
	if !slices.ContainsFunc(env, func(one string) bool { return strings.HasPrefix(one, "ZHIYUN_ROOT=") }) {
		root := filepath.Join(data, "root")
		if err := os.MkdirAll(root, 0o700); err != nil {
			return nil, "", err
		}
		env = append(slices.Clone(env), "ZHIYUN_ROOT="+root)
	}
	return env, filepath.Join(data, "flow-logs"), nil
}

// register registers the tools of the manifests, and those that were pushed, which come in the place of others of their names. One that cannot be read is logged, and
// missing: the others work. Without Data there is no shelf.
func (d *Daemon) register(tools *flow.Tools) (pushed *shelf.Shelf, err error) {
	all, err := manifests(d.config.Manifests)
	if err != nil {
		return nil, err
	}
	if d.config.Data != "" {
		if pushed, err = shelf.Open(filepath.Join(d.config.Data, "tools")); err != nil {
			return nil, err
		}
		if all, err = pushed.Over(all); err != nil && d.config.Logger != nil {
			d.config.Logger.Error("tools that were pushed cannot be read; push them again", "error", err)
		}
	}
	for _, manifest := range all {
		tools.Exec(manifest)
	}
	return pushed, nil
}

// audit notes who did what; what was done to an execution is in its history as well.
func (d *Daemon) audit(ctx context.Context, c *controlpb.Cause, action, object string, _ any) error {
	if d.config.Logger != nil && store.RehearsalOf(ctx) == nil {
		d.config.Logger.InfoContext(ctx, "done for a person", "actor", c.GetActor(), "action", action, "object", object, "reason", c.GetReason())
	}
	return nil
}

// open opens the file of this daemon, or the database that several share.
func (d *Daemon) open(ctx context.Context) (interface {
	flow.Store
	Close() error
}, error) {
	if d.config.Store != "" {
		return pgstore.Open(ctx, d.config.Store)
	}
	return sqlitestore.Open(filepath.Join(d.config.Data, "flow.db"))
}

// manifests reads every manifest of a folder, and of every tool in a folder of it.
func manifests(dir string) ([]flow.Manifest, error) {
	if dir == "" {
		return nil, nil
	}
	out, err := flow.ReadManifests(dir)
	if err != nil {
		return nil, err
	}
	files, err := list(dir, ".json")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var m flow.Manifest
		if err := json.Unmarshal(data, &m); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", file, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// documents saves every flow of a folder.
func documents(ctx context.Context, dir string, engine *flow.Engine, log *slog.Logger) error {
	files, err := list(dir, ".yaml")
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var refused *flow.DefinitionError
		if _, err := engine.Save(ctx, data); errors.As(err, &refused) && saved(ctx, engine, data) {
			if log != nil {
				log.Error("this release refuses a flow that was saved before; what is stored goes on; mend the file", "file", file, "error", err)
			}
		} else if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// saved reports whether a document is the latest version of its flow already: an older release took it, and executions of it may be open.
func saved(ctx context.Context, engine *flow.Engine, source []byte) bool {
	latest, err := engine.Definitions(ctx)
	return err == nil && slices.ContainsFunc(latest, func(d flow.Definition) bool { return bytes.Equal(d.Source, source) })
}

func list(dir, suffix string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	slices.Sort(files)
	return files, err
}

// listen opens the listener. A unix socket is made in a folder that only this user can enter and then moved to its place.
func (d *Daemon) listen() (net.Listener, error) {
	path, unix := strings.CutPrefix(d.config.Listen, "unix://")
	if !unix {
		config := d.config.TLS.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
		listener, err := tls.Listen("tcp", d.config.Listen, config)
		if err == nil {
			d.addr = "https://" + listener.Addr().String()
		}
		return listener, err
	}
	// The store's lock has shown that no other daemon of this folder runs; a socket that somebody else serves is not ours to take.
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process serves %s; stop it or choose another path", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".flow")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(filepath.Join(dir, "s"), 0o600), os.Rename(filepath.Join(dir, "s"), path)); err != nil {
		listener.Close()
		return nil, err
	}
	d.addr = d.config.Listen
	return listener, nil
}
