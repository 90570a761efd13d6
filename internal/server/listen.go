package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/peer"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// drainTime is how long calls in flight may go on when the server stops.
const drainTime = 3 * time.Second

// doors are the server's listeners.
type doors struct {
	listeners []net.Listener
	hooks     net.Listener // nil: none
}

// open listens on the private socket, and on the TCP address if there is one. A socket file that a killed
// server left is replaced; one that is served is not.
func open(config Config, trust *trust) (*doors, error) {
	socket := filepath.Join(config.Dir, "control.sock")
	if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("server: another server serves %s; stop it, or use another --dir", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("server: remove the stale socket: %w", err)
	}
	d := &doors{}
	// The folder has mode 0700, so that nobody can connect before the socket's own mode is set.
	unix, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	d.listeners = append(d.listeners, unix)
	if err := os.Chmod(socket, 0o600); err != nil {
		d.close()
		return nil, fmt.Errorf("server: %w", err)
	}
	if err := d.openHooks(config, trust); err != nil {
		d.close()
		return nil, err
	}
	if config.Listen == "" {
		return d, nil
	}
	tcp, err := net.Listen("tcp", config.Listen)
	if err != nil {
		d.close()
		return nil, fmt.Errorf("server: %w", err)
	}
	if trust != nil {
		tcp = tls.NewListener(tcp, trust.listener())
	}
	d.listeners = append(d.listeners, tcp)
	return d, nil
}

func (d *doors) close() {
	for _, listener := range d.listeners {
		listener.Close()
	}
	if d.hooks != nil {
		d.hooks.Close()
	}
}

// addr is the TCP address, or "".
func (d *doors) addr() string {
	for _, listener := range d.listeners {
		if listener.Addr().Network() == "tcp" {
			return listener.Addr().String()
		}
	}
	return ""
}

// handler puts the guard in front of the APIs, and health and metrics beside them.
func handler(config Config, verifier auth.Verifier, registry *prometheus.Registry, ready func(context.Context) error, apis *http.ServeMux) http.Handler {
	apis.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	apis.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if err := ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	apis.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_server_refused_total", Help: "Calls that were not let in, by why."}, []string{"why"})
	registry.MustRegister(refused)
	guard := &auth.Guard{
		Verifier: verifier,
		Hosts:    config.Hosts,
		Open:     []string{"/healthz", "/readyz"},
		Allow:    auth.Allowed,
		Conn:     transport.Conn,
		PeerUID: func(conn net.Conn) (uint32, error) {
			who, err := peer.Of(conn)
			return who.UID, err
		},
		WantCertificate: config.ClientCAFile != "",
		OnRefuse:        func(why string) { refused.WithLabelValues(why).Inc() },
	}
	return guard.Handler(apis)
}
