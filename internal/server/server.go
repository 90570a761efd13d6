package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// Server is a control plane. Make it with New.
type Server struct {
	config   Config
	registry *prometheus.Registry
	id       string

	mu    sync.Mutex
	addr  string // guarded by mu
	hooks string // guarded by mu
	ready chan struct{}
}

// New checks the config, reporting all its faults at once. It opens and starts nothing.
func New(config Config) (*Server, error) {
	config, err := config.filled()
	if err != nil {
		return nil, err
	}
	return &Server{config: config, registry: prometheus.NewRegistry(), id: uid.New(), ready: make(chan struct{})}, nil
}

// Ready is closed when the server takes calls.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the TCP address once the server is ready, or "" if there is none.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// HooksAddr is the TCP address for webhooks once the server is ready, or "" if there is none.
func (s *Server) HooksAddr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hooks
}

// Run serves until ctx ends, then lets calls in flight finish and closes everything in order. It is called once.
func (s *Server) Run(ctx context.Context) error {
	config := s.config
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if err := os.Chmod(config.Dir, 0o700); err != nil {
		return fmt.Errorf("server: the data folder must be private: %w", err)
	}
	unlock, err := lock(config.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	trust, err := newTrust(config)
	if err != nil {
		return err
	}
	record, err := openRecord(ctx, config)
	if err != nil {
		return err
	}
	defer record.close()
	if err := own(ctx, record.store("server"), config.Dir); err != nil {
		return err
	}
	h, err := newHouse(config, s.registry, record, trust, s.id)
	if err != nil {
		return err
	}
	defer h.close()
	return s.serve(ctx, record, h)
}

// serve runs the house, then opens the doors.
func (s *Server) serve(ctx context.Context, record *record, h *house) error {
	// The record's member outlives what writes to it.
	below, stopRecord := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecord()
	recordEnded := make(chan error, 1)
	go func() { recordEnded <- record.run(below) }()

	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case err := <-recordEnded:
			recordEnded <- err
			return errors.Join(errors.New("server: the record has ended"), err)
		case <-inner.Done():
			return nil
		}
	})
	for _, run := range h.runs {
		group.Go(func() error { return run(inner) })
	}
	group.Go(func() error { return s.open(inner, group, h) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// open waits until all is wired and known, and then serves.
func (s *Server) open(ctx context.Context, group *errgroup.Group, h *house) error {
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := h.ready(starting); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("server: not ready within a minute: %w", err)
	}
	if err := h.prepare(starting); err != nil {
		return err
	}
	if err := h.issueOwn(starting); err != nil {
		return fmt.Errorf("server: the tokens of its own folder: %w", err)
	}
	mux := http.NewServeMux()
	h.mount(mux)
	doors, err := open(s.config, h.trust)
	if err != nil {
		return err
	}
	serving := transport.NewServer(handler(s.config, h.centers.Credentials, s.registry, h.answers, mux))
	for _, listener := range doors.listeners {
		group.Go(func() error { return serving.Serve(ctx, listener, drainTime) })
	}
	if doors.hooks != nil {
		hooks := transport.NewServer(h.triggers.Handler())
		group.Go(func() error { return hooks.Serve(ctx, doors.hooks, drainTime) })
	}
	s.mu.Lock()
	s.addr = doors.addr()
	if doors.hooks != nil {
		s.hooks = doors.hooks.Addr().String()
	}
	s.mu.Unlock()
	close(s.ready)
	s.config.Logger.Info("server is ready", "dir", s.config.Dir, "addr", doors.addr())
	return nil
}
