package cmdb_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

// running is a DB whose Run goes on until stop.
type running struct {
	*cmdb.DB
	stop func()
}

// run runs a DB on s, or on a new store.
func run(t testing.TB, s ...cmdb.Store) running {
	t.Helper()
	if len(s) == 0 {
		s = append(s, memstore.New())
	}
	return runConfig(t, cmdb.Config{Store: s[0]})
}

func runConfig(t testing.TB, config cmdb.Config) running {
	t.Helper()
	db, err := cmdb.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if err := db.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return running{db, func() { cancel(); wait.Wait() }}
}

// open runs a DB on s until the test ends.
func open(t testing.TB, s cmdb.Store) *cmdb.DB {
	t.Helper()
	db := run(t, s)
	t.Cleanup(db.stop)
	return db.DB
}

// shop is a DB with the declarations of testdata/site.
func shop(t testing.TB) *cmdb.DB {
	t.Helper()
	db := open(t, memstore.New())
	apply(t, db, cmdb.Dir("testdata/site"))
	return db
}

func apply(t testing.TB, db *cmdb.DB, source cmdb.Source, opts ...cmdb.PlanOption) *cmdb.Plan {
	t.Helper()
	plan, err := db.Plan(t.Context(), source, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Apply(t.Context(), plan, cmdb.By("test"), cmdb.Because("set up")); err != nil {
		t.Fatal(err)
	}
	return plan
}

func names(devices []cmdb.Device) []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = d.Name
	}
	return out
}

func docs(texts ...string) cmdb.Source {
	data := make([][]byte, len(texts))
	for i, text := range texts {
		data[i] = []byte(text)
	}
	return cmdb.Documents(data...)
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := cmdb.New(cmdb.Config{ExpireEvery: -1, KeepHistory: -2, KeepAcquisitions: -3})
	for _, field := range []string{"Store", "ExpireEvery", "KeepHistory", "KeepAcquisitions"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("New does not name %s: %v", field, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	db, err := cmdb.New(cmdb.Config{Store: memstore.New(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = db.Run(ctx) })
	defer func() { cancel(); wait.Wait() }()
	apply(t, db, cmdb.Dir("testdata/site"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{"zhiyun_cmdb_devices idle": 4, "zhiyun_cmdb_changes_total create device": 4, "zhiyun_cmdb_changes_total create module": 2} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v in %v", name, got[name], want, got)
		}
	}
}
