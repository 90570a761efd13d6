package flow

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts; nil counters are off.
type metrics struct {
	on       bool
	events   *prometheus.CounterVec
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
	gone     prometheus.Counter
	engines  prometheus.Gauge
	silent   prometheus.Counter
	taken    prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	if registry == nil {
		return &metrics{}, nil
	}
	m := &metrics{
		on: true,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_flow_events_total", Help: "Events of executions, by kind.",
		}, []string{"kind"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_flow_attempts_total", Help: "Attempts that ended, by outcome: ok, failed or unknown.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zhiyun_flow_attempt_seconds", Help: "How long attempts took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
		engines: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zhiyun_flow_members", Help: "Engines that share the store, this one included; 0 if the store is not shared.",
		}),
		silent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_flow_members_removed_total", Help: "Engines that this one has found silent for longer than their lease.",
		}),
		taken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_flow_claims_total", Help: "Executions that this engine has claimed from engines that are gone, or that had no owner.",
		}),
	}
	m.gone = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "zhiyun_flow_removed_total", Help: "Executions that were removed since they had ended longer ago than they are kept.",
	})
	for _, collector := range []prometheus.Collector{m.events, m.attempts, m.seconds, m.gone, m.engines, m.silent, m.taken} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) event(e *Event) {
	if m.on {
		m.events.WithLabelValues(string(e.Kind)).Inc()
	}
}

func (m *metrics) attempt(result Result, took time.Duration) {
	if !m.on {
		return
	}
	outcome := "ok"
	if result.Error != nil {
		outcome = "failed"
		if result.Error.Unknown {
			outcome = "unknown"
		}
	}
	m.attempts.WithLabelValues(outcome).Inc()
	m.seconds.Observe(took.Seconds())
}

func (m *metrics) pruned(n int) {
	if m.on {
		m.gone.Add(float64(n))
	}
}

func (m *metrics) members(n int) {
	if m.on {
		m.engines.Set(float64(n))
	}
}

func (m *metrics) removed() {
	if m.on {
		m.silent.Inc()
	}
}

func (m *metrics) claimed(n int) {
	if m.on {
		m.taken.Add(float64(n))
	}
}
