package cmdb

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	changes   *prometheus.CounterVec
	conflicts prometheus.Counter
	replica   prometheus.Registerer // for the replica's own
}

var devicesDesc = prometheus.NewDesc("zhiyun_cmdb_devices", "Devices by state.", []string{"state"}, nil)

func newMetrics(to prometheus.Registerer, db *DB) (metrics, error) {
	m := metrics{
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_cmdb_changes_total", Help: "Changes committed by this process, by kind and action."}, []string{"kind", "action"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zhiyun_cmdb_conflicts_total", Help: "Commits tried again because another writer was first."}),
	}
	if to == nil {
		return m, nil
	}
	m.replica = prometheus.WrapRegistererWith(prometheus.Labels{"of": "cmdb"}, to)
	return m, errors.Join(to.Register(m.changes), to.Register(m.conflicts), to.Register(deviceCollector{db}))
}

// deviceCollector counts devices when asked, so that no counter can go astray.
type deviceCollector struct{ db *DB }

func (c deviceCollector) Describe(ch chan<- *prometheus.Desc) { ch <- devicesDesc }

func (c deviceCollector) Collect(ch chan<- prometheus.Metric) {
	for state, n := range c.db.Counts() {
		ch <- prometheus.MustNewConstMetric(devicesDesc, prometheus.GaugeValue, float64(n), string(state))
	}
}
