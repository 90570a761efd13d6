package scale

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	open      prometheus.Gauge
	decisions *prometheus.CounterVec
	orders    *prometheus.CounterVec
	errors    prometheus.Counter
}

// newMetrics makes the metrics, and registers them if there is where to.
func newMetrics(to prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zhiyun_scale_open_orders", Help: "Orders that are planned or under way."}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_scale_decisions_total", Help: "Decisions, by the code of the reason."}, []string{"code"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_scale_orders_total", Help: "Orders that came to a state, by direction and state."}, []string{"direction", "state"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_scale_pass_errors_total", Help: "Passes over the modules that did not succeed whole."}),
	}
	if to == nil {
		return m, nil
	}
	return m, errors.Join(to.Register(m.open), to.Register(m.decisions), to.Register(m.orders), to.Register(m.errors))
}
