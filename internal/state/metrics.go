package state

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the DB does. A nil *metrics counts nothing.
type metrics struct {
	commits *prometheus.CounterVec
	rows    prometheus.Counter
	apply   prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer, db *DB) (*metrics, error) {
	if registerer == nil {
		return nil, nil
	}
	m := &metrics{
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_state_commits_total", Help: "Commits tried, by result: ok, conflict (tried again), error.",
		}, []string{"result"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_state_applied_rows_total", Help: "Row changes applied to the replica.",
		}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zhiyun_state_apply_seconds", Help: "Time to apply one commit to the replica.",
			Buckets: prometheus.ExponentialBuckets(1e-5, 4, 10),
		}),
	}
	status := func(read func(Status) float64) func() float64 {
		return func() float64 { return read(db.Status()) }
	}
	collectors := []prometheus.Collector{
		m.commits, m.rows, m.apply,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zhiyun_state_revision", Help: "Last commit that the replica contains."},
			status(func(s Status) float64 { return float64(s.Revision) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zhiyun_state_connected", Help: "1 while the replica follows the store, 0 while its rows may be old."},
			status(func(s Status) float64 {
				if s.Connected {
					return 1
				}
				return 0
			})),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "zhiyun_state_resyncs_total", Help: "Times that the whole store had to be read again."},
			status(func(s Status) float64 { return float64(s.Resyncs) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zhiyun_state_faulty_records", Help: "Records that are not rows of their table."},
			status(func(s Status) float64 { return float64(s.Faults) })),
	}
	var faults []error
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			faults = append(faults, fmt.Errorf("state: Config.Metrics: %w; give each DB a registerer of its own, such as prometheus.WrapRegistererWith", err))
		}
	}
	return m, errors.Join(faults...)
}

func (m *metrics) committed(result string) {
	if m != nil {
		m.commits.WithLabelValues(result).Inc()
	}
}

func (m *metrics) applied(rows int, took time.Duration) {
	if m != nil {
		m.rows.Add(float64(rows))
		m.apply.Observe(took.Seconds())
	}
}
