package sample

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config of a Server.
type Config struct {
	// Addr to listen on, host and port; port 0 takes a free one. Required.
	Addr string
	// Root is the device's folder: settings are read from Root/etc/sample.yaml. Default: none, the defaults.
	Root string
	// Version is told at /version. Default: "dev".
	Version string
	// Logger gets a line at start and end. Default: none.
	Logger *slog.Logger
}

// Server is one instance of the module.
type Server struct {
	config    Config
	listening chan struct{} // closed when addr is known
	addr      net.Addr
	admitted  atomic.Int64
	served    atomic.Int64
	failed    atomic.Int64
	refused   atomic.Int64

	mu       sync.Mutex // guards capacity
	capacity *capacity
	settings Settings // set before listening is closed
}

// New checks config. It opens nothing.
func New(config Config) (*Server, error) {
	if _, _, err := net.SplitHostPort(config.Addr); err != nil {
		return nil, fmt.Errorf("sample: Addr %q: %w; give host:port", config.Addr, err)
	}
	if config.Version == "" {
		config.Version = "dev"
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{config: config, listening: make(chan struct{})}, nil
}

// Addr waits until the server listens and returns its address, or nil when ctx ends before.
func (s *Server) Addr(ctx context.Context) net.Addr {
	select {
	case <-s.listening:
		return s.addr
	case <-ctx.Done():
		return nil
	}
}

// Run serves until ctx ends, then finishes the requests in flight. It may be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	s.settings, err = (Settings{}).complete()
	if s.config.Root != "" {
		s.settings, err = readSettings(filepath.Join(s.config.Root, filepath.FromSlash(SettingsPath)))
	}
	if err != nil {
		return err
	}
	s.capacity = newCapacity(s.settings)
	listener, err := net.Listen("tcp", s.config.Addr)
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	s.addr = listener.Addr()
	close(s.listening)
	s.config.Logger.Info("serving", "addr", s.addr.String(), "version", s.config.Version, "rate", s.settings.Rate)

	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("sample: serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.Drain)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		server.Close()
		<-failed
		return fmt.Errorf("sample: requests were still in flight after %v: %w", s.settings.Drain, err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sample: serve: %w", err)
	}
	s.config.Logger.Info("drained", "served", s.served.Load(), "failed", s.failed.Load(), "refused", s.refused.Load())
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serve)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok\n") // a client that went away needs no answer
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"version": s.config.Version, "settings": s.settings,
			"admitted": s.admitted.Load(), "served": s.served.Load(), "failed": s.failed.Load(), "refused": s.refused.Load()})
	})
	return mux
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	until, ok := s.capacity.admit(time.Now())
	s.mu.Unlock()
	if !ok {
		s.refused.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "over capacity", http.StatusServiceUnavailable)
		return
	}
	s.admitted.Add(1)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	// Every n-th fails, rather than a random one: the share is exact.
	n := float64(s.served.Add(1))
	if int64(n*s.settings.Fail) > int64((n-1)*s.settings.Fail) {
		s.failed.Add(1)
		http.Error(w, "this version is broken", http.StatusInternalServerError)
		return
	}
	io.WriteString(w, s.settings.Greeting+"\n")
}

// Main is the module as a process: arguments -addr and -root (default: $ZHIYUN_ROOT), SIGTERM drains it. It
// returns the exit code.
func Main(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sample", flag.ContinueOnError)
	flags.SetOutput(stderr)
	config := Config{Logger: slog.New(slog.NewTextHandler(stdout, nil))}
	flags.StringVar(&config.Addr, "addr", getenv("ZHIYUN_ADDR")+":8080", "address to listen on")
	flags.StringVar(&config.Root, "root", getenv("ZHIYUN_ROOT"), "the device's folder")
	flags.StringVar(&config.Version, "version", "dev", "version to tell")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	server, err := New(config)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
		defer stop()
		err = server.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}
