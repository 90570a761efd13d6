package server

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// termRegisterer registers the metrics of one leader's term, and takes them away when it is over.
type termRegisterer struct {
	prometheus.Registerer
	mu    sync.Mutex
	taken []prometheus.Collector // guarded by mu
}

func newTermRegisterer(below prometheus.Registerer) *termRegisterer {
	return &termRegisterer{Registerer: below}
}

// Register implements prometheus.Registerer.
func (t *termRegisterer) Register(c prometheus.Collector) error {
	err := t.Registerer.Register(c)
	if err == nil {
		t.mu.Lock()
		t.taken = append(t.taken, c)
		t.mu.Unlock()
	}
	return err
}

// MustRegister implements prometheus.Registerer.
func (t *termRegisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := t.Register(c); err != nil {
			panic(err)
		}
	}
}

func (t *termRegisterer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.taken {
		t.Registerer.Unregister(c)
	}
}
