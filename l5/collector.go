package l5

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// maxServiceLabels is how many services have metrics of their own; those that a process comes to call after them share the
// label otherServices, so that a program that makes service ids of its input does no harm.
const (
	maxServiceLabels = 500
	otherServices    = "_others"
)

// collector gathers metrics from what services count anyway: calls cost nothing more for being measured.
type collector struct{ client *Client }

var (
	callsDesc     = desc("calls_total", "Calls that are over, by outcome: success, failure, or rejected by the callee.", "service", "outcome")
	durationDesc  = desc("call_duration_seconds", "How long calls that succeeded took, as the callers measured it.", "service")
	inFlightDesc  = desc("calls_in_flight", "Calls that were routed and are not over.", "service")
	refusedDesc   = desc("refused_total", "Calls that got no route, by reason.", "service", "reason")
	instancesDesc = desc("instances", "Instances by health in the eyes of this process; none are those that take no calls by weight.", "service", "health")
	panicDesc     = desc("panicking", "1 while instances that are down are in use.", "service")
	fellBackDesc  = desc("fallen_back_routes", "Routes of the rules whose destinations take no calls, so that all instances are candidates.", "service")
	ageDesc       = desc("state_age_seconds", "How long ago the state was last known to be what the name service says.", "service")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("zhiyun", "l5_client", name), help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{callsDesc, durationDesc, inFlightDesc, refusedDesc, instancesDesc, panicDesc, fellBackDesc, ageDesc} {
		out <- d
	}
}

// reading is what one service, or all that share a label, have counted.
type reading struct {
	total     counted
	histogram [latencyBuckets]int64
	refused   [refusals]uint64
	instances map[string]int
	inFlight  int
	panicking int
	fellBack  int
	age       time.Duration
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	now, others := c.client.config.now(), reading{instances: make(map[string]int)}
	folded := false
	for _, s := range *c.client.services.Load() {
		if s.number < maxServiceLabels {
			r := reading{instances: make(map[string]int)}
			s.read(&r, now)
			r.collect(s.name, out)
			continue
		}
		folded = true
		s.read(&others, now)
	}
	if folded {
		others.collect(otherServices, out)
	}
}

// read adds what the service has counted.
func (s *service) read(r *reading, now time.Time) {
	for i := range s.refused {
		r.refused[i] += s.refused[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		e.collect()
		r.inFlight += e.load.InFlight()
	}
	for _, e := range s.departed {
		e.collect()
		r.inFlight += e.load.InFlight()
	}
	r.total.add(s.total)
	for i, n := range s.histogram {
		r.histogram[i] += n
	}
	for _, status := range s.group.Statuses() {
		if status.Factors.Static*status.Factors.Gray == 0 {
			r.instances["none"]++
			continue
		}
		r.instances[status.Health.String()]++
	}
	r.age = max(r.age, s.age(now))
	p := s.picks.Load()
	if p == nil {
		return
	}
	if p.panic {
		r.panicking = 1
	}
	if p.classes != nil {
		for _, class := range p.classes.picks {
			if class.fellBack {
				r.fellBack++
			}
		}
	}
}

func (r *reading) collect(service string, out chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, append([]string{service}, labels...)...)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{service}, labels...)...)
	}
	counter(callsDesc, float64(r.total.successes), "success")
	counter(callsDesc, float64(r.total.failures), "failure")
	counter(callsDesc, float64(r.total.rejected), "rejected")
	buckets, below := make(map[float64]uint64, latencyBuckets-1), uint64(0)
	for i := range latencyBuckets - 1 {
		below += uint64(r.histogram[i])
		buckets[LatencyBound(i).Seconds()] = below
	}
	below += uint64(r.histogram[latencyBuckets-1])
	out <- prometheus.MustNewConstHistogram(durationDesc, below, r.total.latencySum.Seconds(), buckets, service)
	for i, n := range r.refused {
		counter(refusedDesc, float64(n), refusalNames[i])
	}
	for _, health := range []string{balance.Up.String(), balance.Ejected.String(), balance.Probing.String(), balance.Trial.String(), "none"} {
		gauge(instancesDesc, float64(r.instances[health]), health)
	}
	gauge(inFlightDesc, float64(r.inFlight))
	gauge(panicDesc, float64(r.panicking))
	gauge(fellBackDesc, float64(r.fellBack))
	gauge(ageDesc, r.age.Seconds())
}
