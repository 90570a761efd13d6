package agent

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted whether or not anybody gathers them.
type metrics struct {
	connected, streams              prometheus.Gauge
	resyncs, reports                prometheus.Counter
	reportFailures, snapshotsFailed prometheus.Counter
	tablesWritten, tablesFailed     prometheus.Counter
	refused                         *prometheus.CounterVec // by what was asked
	doubts, ejections               prometheus.Counter
	probes                          *prometheus.CounterVec // by result: ok, failed
}

func newMetrics(registerer prometheus.Registerer, a *Agent) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "zhiyun", Subsystem: "l5_agent", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "zhiyun", Subsystem: "l5_agent", Name: name, Help: help})
	}
	m := &metrics{
		connected:       gauge("connected", "1 while the stream to the server is open."),
		streams:         gauge("watch_streams", "Open watch streams of the device's programs."),
		resyncs:         counter("resyncs_total", "Gaps in the stream that made a full snapshot necessary."),
		reports:         counter("reports_total", "Outcome batches the server acknowledged."),
		reportFailures:  counter("report_failures_total", "Outcome batches that got no answer and are sent again."),
		snapshotsFailed: counter("snapshot_write_failures_total", "Times the snapshot file could not be written."),
		tablesWritten:   counter("table_writes_total", "Times changes were written to the route table."),
		doubts:          counter("doubts_total", "Failures that the device's programs told of."),
		ejections:       counter("ejections_total", "Instances found down, for all programs of the device."),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "zhiyun", Subsystem: "l5_agent", Name: "probes_total", Help: "Probes of instances in doubt, by result.",
		}, []string{"result"}),
		tablesFailed: counter("table_write_failures_total", "Times the route table could not be written."),
	}
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "zhiyun", Subsystem: "l5_agent", Name: "refused_total",
		Help: "What processes of this device asked for in another's name: route, register, change, report.",
	}, []string{"what"})
	if registerer == nil {
		return m, nil
	}
	registrations := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "zhiyun", Subsystem: "l5_agent", Name: "registrations", Help: "Instances registered from this device.",
	}, func() float64 { return float64(len(a.keeper.Held())) })
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "zhiyun", Subsystem: "l5_agent", Name: "held_services",
		Help: "Services whose new state is held back, since the server lost its history and too many instances with it.",
	}, func() float64 { return float64(a.link.Held()) })
	var errs []error
	for _, c := range []prometheus.Collector{m.connected, m.streams, m.resyncs, m.reports, m.reportFailures, m.snapshotsFailed, m.tablesWritten, m.tablesFailed, m.doubts, m.ejections, m.probes, m.refused, registrations, held} {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}
