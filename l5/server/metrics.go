package server

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted whether or not anybody gathers them.
type metrics struct {
	streams, owners             prometheus.Gauge
	held                        prometheus.Gauge
	expired, requests, failures prometheus.Counter
	denied, duplicates          prometheus.Counter
	refused                     *prometheus.CounterVec // by what was asked
}

func newMetrics(registerer prometheus.Registerer, s *Server) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "zhiyun", Subsystem: "l5_server", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "zhiyun", Subsystem: "l5_server", Name: name, Help: help})
	}
	m := &metrics{
		streams:    gauge("watch_streams", "Open watch streams."),
		owners:     gauge("register_streams", "Open register streams."),
		held:       gauge("held_instances", "Instances that would have expired but for the bounds."),
		expired:    counter("expired_total", "Instances removed because their owner's stream was lost."),
		requests:   counter("reported_requests_total", "Calls that callers reported."),
		failures:   counter("reported_failures_total", "Failed calls that callers reported."),
		denied:     counter("denied_total", "Subscriptions refused for want of a grant."),
		duplicates: counter("duplicate_reports_total", "Report batches that had been counted before."),
	}
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "zhiyun", Subsystem: "l5_server", Name: "refused_total",
		Help: "What peers asked for in the name of callers, or of instances, that are not theirs: route, register, report.",
	}, []string{"what"})
	if registerer == nil {
		return m, nil
	}
	services := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "zhiyun", Subsystem: "l5_server", Name: "services", Help: "Service ids with instances.",
	}, func() float64 { return float64(len(s.registry.names())) })
	kept := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "zhiyun", Subsystem: "l5_server", Name: "kept_instances", Help: "Instances that are served although they vanished from the store unasked.",
	}, func() float64 {
		n := 0
		for _, addrs := range s.registry.kept(time.Time{}) {
			n += len(addrs)
		}
		return float64(n)
	})
	var errs []error
	for _, c := range []prometheus.Collector{kept, m.streams, m.owners, m.held, m.expired, m.requests, m.failures, m.denied, m.duplicates, m.refused, services} {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}
