package l5

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted whether or not anybody gathers them.
type metrics struct {
	connected                                   prometheus.Gauge
	ejections, resyncs, reports, reportFailures prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, c *Client) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "zhiyun", Subsystem: "l5_client", Name: name, Help: help})
	}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "zhiyun", Subsystem: "l5_client", Name: "connected", Help: "1 while the stream to the name service is open.",
		}),
		ejections:      counter("ejections_total", "Instances taken out for failures in a row or on trial."),
		resyncs:        counter("resyncs_total", "Gaps in the stream that made a full snapshot necessary."),
		reports:        counter("reports_total", "Outcome batches acknowledged."),
		reportFailures: counter("report_failures_total", "Outcome batches that got no answer and are sent again."),
	}
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, collector := range []prometheus.Collector{m.connected, m.ejections, m.resyncs, m.reports, m.reportFailures, collector{c}} {
		errs = append(errs, registerer.Register(collector))
	}
	return m, errors.Join(errs...)
}
