package drift

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are an agent's. They have labels of kinds and codes only.
type metrics struct {
	openFindings   *prometheus.GaugeVec
	events         *prometheus.CounterVec
	repairs        *prometheus.CounterVec
	look           *prometheus.HistogramVec
	lost           prometheus.Counter
	reportFailures prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		openFindings: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "zhiyun_drift_open_findings",
			Help: "Differences between the device and its declaration."}, []string{"kind"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_drift_events_total",
			Help: "Changes of findings, by what happened."}, []string{"kind", "event"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zhiyun_drift_repairs_total",
			Help: "Repairs that ended, by result."}, []string{"kind", "result"}),
		look: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "zhiyun_drift_look_seconds",
			Help:    "Time to observe one piece of the device.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"kind"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_drift_full_looks_total",
			Help: "Full looks because events were lost or watching began or ended."}),
		reportFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "zhiyun_drift_report_failures_total",
			Help: "Reports that were not taken."}),
	}
	if r == nil {
		return m, nil
	}
	var faults []error
	for _, c := range []prometheus.Collector{m.openFindings, m.events, m.repairs, m.look, m.lost, m.reportFailures} {
		if err := r.Register(c); err != nil {
			faults = append(faults, fmt.Errorf("drift: Config.Metrics: %w; give each agent of a process a registry of its own", err))
		}
	}
	return m, errors.Join(faults...)
}

func (m *metrics) open(findings []Finding) {
	count := make(map[Kind]int)
	for _, f := range findings {
		count[f.Kind]++
	}
	for _, kind := range Kinds() {
		m.openFindings.WithLabelValues(string(kind)).Set(float64(count[kind]))
	}
}

func (m *metrics) event(e Event) {
	m.events.WithLabelValues(string(e.Finding.Kind), string(e.Kind)).Inc()
}

func (m *metrics) repair(kind Kind, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.repairs.WithLabelValues(string(kind), result).Inc()
}

func (m *metrics) looks(kind Kind, took time.Duration) {
	m.look.WithLabelValues(string(kind)).Observe(took.Seconds())
}
