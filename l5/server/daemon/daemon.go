// Package daemon serves a name server on a socket of its own: what cmd/l5-server is made of.
package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5/internal/socket"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// Config of a Daemon.
type Config struct {
	// Listen is "unix:///run/zhiyun/l5-server.sock", opened with mode 0600, or "host:port" for TLS. Port 0 takes a free
	// one. Required.
	Listen string
	// TLS is required for host:port, and has to demand client certificates: being reachable is no proof of who calls.
	TLS *tls.Config
	// Server is the name server's config.
	Server server.Config
}

// Daemon is a name server with its listener.
//
//	        Run           listening                 ctx ends
//	new ----------> open ------------> serving ----------------> stopped
type Daemon struct {
	config Config
	server *server.Server
	ready  chan struct{}
	addr   string // set before ready is closed
}

// New checks the config, reports all its faults, and opens nothing.
func New(config Config) (*Daemon, error) {
	var errs []error
	if !strings.HasPrefix(config.Listen, "unix:///") {
		_, _, err := net.SplitHostPort(config.Listen)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("Listen is %q: want unix:///path or host:port", config.Listen))
		case config.TLS == nil || config.TLS.ClientAuth != tls.RequireAndVerifyClientCert:
			errs = append(errs, errors.New("TLS must be set and demand client certificates (tls.RequireAndVerifyClientCert) for host:port; use unix:///path on one machine"))
		}
	}
	s, err := server.New(config.Server)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("l5/server/daemon: config: %w", err)
	}
	return &Daemon{config: config, server: s, ready: make(chan struct{})}, nil
}

// Server returns the name server.
func (d *Daemon) Server() *server.Server { return d.server }

// Addr waits until the daemon listens and returns what clients give as their target.
func (d *Daemon) Addr(ctx context.Context) (string, error) {
	select {
	case <-d.ready:
		return d.addr, nil
	case <-ctx.Done():
		return "", fmt.Errorf("l5/server/daemon: not listening yet: %w", context.Cause(ctx))
	}
}

// Run listens and serves until ctx ends; then it ends all streams and returns nil. It is called once.
func (d *Daemon) Run(ctx context.Context) error {
	listener, release, err := d.listen()
	if err != nil {
		return fmt.Errorf("l5/server/daemon: %w", err)
	}
	defer release()
	close(d.ready)
	mux := http.NewServeMux()
	mux.Handle(d.server.Handler())
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return d.server.Run(inner) })
	group.Go(func() error { return transport.NewServer(mux).Serve(inner, listener, 2*time.Second) })
	return group.Wait()
}

func (d *Daemon) listen() (net.Listener, func(), error) {
	if path, ok := strings.CutPrefix(d.config.Listen, "unix://"); ok {
		d.addr = d.config.Listen
		return socket.Listen(path)
	}
	config := d.config.TLS.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	listener, err := tls.Listen("tcp", d.config.Listen, config)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", d.config.Listen, err)
	}
	d.addr = "https://" + listener.Addr().String()
	return listener, func() { listener.Close() }, nil
}
