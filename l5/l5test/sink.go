package l5test

import (
	"context"
	"slices"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// Sink is a server.Sink that remembers. Its zero value is ready.
type Sink struct {
	mu  sync.Mutex
	err error            // guarded by mu
	all []server.Outcome // guarded by mu
}

// Outcomes implements server.Sink.
func (s *Sink) Outcomes(_ context.Context, outcomes []server.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.all = append(s.all, outcomes...)
	return nil
}

// Fail makes Outcomes return err from now on; nil heals it.
func (s *Sink) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// All returns what was reported, in the order in which it came.
func (s *Sink) All() []server.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// Sum returns what was reported on one instance, or on all of a service for an empty addr.
func (s *Sink) Sum(service, addr string) server.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := server.Outcome{Service: service, Addr: addr}
	for _, o := range s.all {
		if o.Service == service && (addr == "" || o.Addr == addr) {
			sum.Requests += o.Requests
			sum.Failures += o.Failures
			sum.Rejected += o.Rejected
			sum.LatencySum += o.LatencySum
			sum.Reports += o.Reports
		}
	}
	return sum
}
