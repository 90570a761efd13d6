package gray

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	open        *prometheus.GaugeVec
	verdicts    *prometheus.CounterVec
	transitions *prometheus.CounterVec
	errors      prometheus.Counter
}

// newMetrics makes the metrics, and registers them if there is where to.
func newMetrics(to prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zhiyun_gray_open_rollouts", Help: "Rollouts that are not final, by state."}, []string{"state"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_gray_verdicts_total", Help: "Looks at rollouts, by the code of the verdict."}, []string{"code"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_gray_transitions_total", Help: "Transitions of rollouts, by the code of the reason."}, []string{"code"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_gray_pass_errors_total", Help: "Passes over the open rollouts that did not succeed whole."}),
	}
	if to == nil {
		return m, nil
	}
	return m, errors.Join(to.Register(m.open), to.Register(m.verdicts), to.Register(m.transitions), to.Register(m.errors))
}

func (m *metrics) setOpen(states map[State]int) {
	for _, state := range []State{Queued, Running, Paused, Aborting} {
		m.open.WithLabelValues(string(state)).Set(float64(states[state]))
	}
}

func (m *metrics) verdict(v Verdict) { m.verdicts.WithLabelValues(v.Reason.Code).Inc() }
