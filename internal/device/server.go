package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// ServeConfig is what Serve needs.
type ServeConfig struct {
	// Path of the unix socket, at most 100 bytes long. Required, absolute.
	Path string
	// Supervisor runs the device's processes. Required; its Run is the caller's.
	Supervisor *supervise.Supervisor
	// Routes answers l5.caller.join. Default: every request fails with env.missing.
	Routes Routes
	// Logger gets what is asked. Default: none.
	Logger *slog.Logger
}

// Serve offers the device's API on a unix socket of mode 0600, until ctx ends. What an earlier agent left at
// the path is replaced in one motion.
func Serve(ctx context.Context, config ServeConfig) error {
	if config.Supervisor == nil {
		return errors.New("device: ServeConfig.Supervisor is missing; give the agent's *supervise.Supervisor")
	}
	if !filepath.IsAbs(config.Path) || len(config.Path) > 100 {
		return fmt.Errorf("device: ServeConfig.Path %q must be absolute and at most 100 bytes long; use a shorter root", config.Path)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := listen(config.Path)
	if err != nil {
		return fmt.Errorf("device: listen on %s: %w", config.Path, err)
	}
	defer os.Remove(config.Path)
	return transport.NewServer(Handler(config)).Serve(ctx, listener, 2*time.Second)
}

// listen binds a socket that nobody but its owner can open at any moment: it is made under another name and
// moved when its mode is right.
func listen(path string) (net.Listener, error) {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

type nameRequest struct {
	Name     string        `json:"name"`
	Instance int           `json:"instance,omitempty"`
	Grace    time.Duration `json:"grace_ns,omitempty"`
}

type warmRequest struct {
	Caller  string `json:"caller"`
	Service string `json:"service"`
}

// Handler is the device's API as Serve offers it: HTTP with JSON.
func Handler(config ServeConfig) http.Handler {
	local := Local(config.Supervisor)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/processes", func(w http.ResponseWriter, r *http.Request) {
		list, err := local.List(r.Context())
		answer(w, list, err)
	})
	mux.HandleFunc("GET /v1/specs", func(w http.ResponseWriter, r *http.Request) {
		specs, err := local.Specs(r.Context())
		answer(w, specs, err)
	})
	mux.HandleFunc("POST /v1/start", handle(func(ctx context.Context, spec supervise.Spec) (any, error) {
		return struct{}{}, local.Start(ctx, spec)
	}))
	mux.HandleFunc("POST /v1/stop", handle(func(ctx context.Context, in nameRequest) (any, error) {
		return struct{}{}, local.Stop(ctx, in.Name, in.Grace)
	}))
	mux.HandleFunc("POST /v1/kick", handle(func(ctx context.Context, in nameRequest) (any, error) {
		return struct{}{}, local.Kick(ctx, in.Name)
	}))
	mux.HandleFunc("POST /v1/log", handle(func(ctx context.Context, in nameRequest) (any, error) {
		return local.Log(ctx, in.Name, in.Instance)
	}))
	mux.HandleFunc("POST /v1/warm", handle(func(ctx context.Context, in warmRequest) (any, error) {
		if config.Routes == nil {
			return nil, fail("env.missing", "this agent has no routes; give it ServeConfig.Routes")
		}
		return struct{}{}, config.Routes.Warm(ctx, in.Caller, in.Service)
	}))
	return mux
}

func handle[In any](do func(context.Context, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&in); err != nil {
			answer(w, nil, fail("input.invalid", "%v", err))
			return
		}
		value, err := do(r.Context(), in)
		answer(w, value, err)
	}
}

// answer writes the value, or the error by name.
func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		value = map[string]*Error{"error": named(err)}
	}
	json.NewEncoder(w).Encode(value) // a caller that went away is no fault of ours
}

// Local is the supervisor as the tools see it, in the same process.
func Local(s *supervise.Supervisor) Processes { return localProcesses{s} }

type localProcesses struct{ s *supervise.Supervisor }

// coded gives the supervisor's errors their codes.
func coded(err error) error {
	var spawn *supervise.SpawnError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &spawn):
		return fail("process.spawn", "%v", err)
	case errors.Is(err, supervise.ErrInvalid):
		return fail("input.invalid", "%v", err)
	case errors.Is(err, supervise.ErrUnknown):
		return fail("process.unknown", "%v", err)
	case errors.Is(err, supervise.ErrClosed):
		return later("agent.stopping", "%v", err)
	}
	return err
}

func (l localProcesses) Start(ctx context.Context, spec supervise.Spec) error {
	return coded(l.s.Start(ctx, spec))
}

func (l localProcesses) Stop(ctx context.Context, name string, grace time.Duration) error {
	return coded(l.s.Stop(ctx, name, grace))
}

func (l localProcesses) Kick(ctx context.Context, name string) error {
	return coded(l.s.Kick(ctx, name))
}

func (l localProcesses) List(ctx context.Context) ([]supervise.Process, error) {
	if err := l.s.Ready(ctx); err != nil {
		return nil, coded(err)
	}
	return l.s.List(), nil
}

func (l localProcesses) Specs(ctx context.Context) ([]supervise.Spec, error) {
	if err := l.s.Ready(ctx); err != nil {
		return nil, coded(err)
	}
	return l.s.Specs(), nil
}

func (l localProcesses) Log(_ context.Context, name string, instance int) (string, error) {
	file, err := os.Open(l.s.LogPath(filepath.Base(name), instance))
	if err != nil {
		return "", fail("process.unknown", "no log of %s, instance %s: %v", name, strconv.Itoa(instance), err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-outputLimit), outputLimit))
	return string(text), err
}
