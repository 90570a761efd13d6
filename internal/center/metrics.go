package center

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ notices *prometheus.CounterVec }

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	if registerer == nil {
		return nil, nil
	}
	m := &metrics{notices: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zhiyun_center_notices_total", Help: "Notices by what became of them.",
	}, []string{"outcome"})}
	if err := registerer.Register(m.notices); err != nil {
		return nil, fmt.Errorf("center: Config.Metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) notice(outcome Outcome) {
	if m != nil {
		m.notices.WithLabelValues(string(outcome)).Inc()
	}
}
