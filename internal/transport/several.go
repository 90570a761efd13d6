package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
)

// several sends requests to one of several servers that serve the same: to one of them, until it fails or ends a stream,
// then to the next. Each starts with one at random, so that the clients spread.
//
//	one --a request fails, a stream ends, 503--> the next
type several struct {
	targets []*target

	mu  sync.Mutex
	now int // guarded by mu; index of the one in use
}

type target struct {
	client *http.Client
	base   string
}

// dialSeveral returns a client for a list of targets and the base URL to call, which stands for all of them.
func dialSeveral(config DialConfig, list []string) (*http.Client, string, error) {
	s := &several{now: rand.IntN(len(list))}
	var errs []error
	for _, one := range list {
		config.Target = strings.TrimSpace(one)
		client, base, err := Dial(config)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.targets = append(s.targets, &target{client, base})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, "", err
	}
	return &http.Client{Transport: s, CheckRedirect: s.targets[0].client.CheckRedirect}, s.targets[0].base, nil
}

// RoundTrip implements http.RoundTripper.
func (s *several) RoundTrip(request *http.Request) (*http.Response, error) {
	s.mu.Lock()
	at := s.now
	s.mu.Unlock()
	t := s.targets[at]
	request = request.Clone(request.Context())
	base, err := request.URL.Parse(t.base)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", t.base, err)
	}
	request.URL.Scheme, request.URL.Host, request.Host = base.Scheme, base.Host, ""
	response, err := t.client.Transport.RoundTrip(request)
	switch {
	case err != nil:
		if request.Context().Err() == nil {
			s.leave(at)
		}
		return nil, err
	case response.StatusCode == http.StatusServiceUnavailable:
		s.leave(at)
	case strings.HasPrefix(response.Header.Get("Content-Type"), "application/connect"), strings.HasPrefix(response.Header.Get("Content-Type"), "application/grpc"):
		// A stream that its server ends is a server that goes, or does not want it.
		response.Body = &streamBody{ReadCloser: response.Body, ended: func() {
			if !errors.Is(request.Context().Err(), context.Canceled) {
				s.leave(at)
			}
		}}
	}
	return response, nil
}

// leave goes on to the next target, unless that was done since.
func (s *several) leave(at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == at {
		s.now = (at + 1) % len(s.targets)
	}
}

// CloseIdleConnections closes those to all targets; http.Client calls it.
func (s *several) CloseIdleConnections() {
	for _, t := range s.targets {
		t.client.CloseIdleConnections()
	}
}

// streamBody tells when the other side ended a stream.
type streamBody struct {
	io.ReadCloser
	ended func()
	once  sync.Once
}

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.once.Do(b.ended)
	}
	return n, err
}
