package state_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/state"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// The deck's scale: instances of services on devices.
const (
	deckInstances = 161_679
	deckServices  = 12_740
)

// instance is a row as the name service has it.
type instance struct {
	Addr    string            `json:"addr"`
	Service string            `json:"service"`
	Device  string            `json:"device"`
	Module  string            `json:"module"`
	Weight  int               `json:"weight"`
	Share   int               `json:"share"`
	State   string            `json:"state"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// declared and routed are rows of their own: a service is the id that callers route by, a module what operators declare.
type declared struct {
	Name     string   `json:"name"`
	Business string   `json:"business"`
	Services []string `json:"services"`
	Calls    []string `json:"calls"`
	Min      int      `json:"min"`
	Max      int      `json:"max"`
}

type routed struct {
	ID     string `json:"id"`
	Module string `json:"module"`
	Port   int    `json:"port"`
	Policy string `json:"policy"`
}

func deckModule(i int) *declared {
	m := &declared{Name: fmt.Sprintf("m%05d", i), Business: fmt.Sprintf("business-%02d", i%100), Services: []string{fmt.Sprintf("m%05d.api", i)}, Min: 2, Max: 100}
	for k := 1; k <= 3; k++ {
		m.Calls = append(m.Calls, fmt.Sprintf("m%05d.api", (i*11+k*4001)%deckServices))
	}
	return m
}

func deckService(i int) *routed {
	return &routed{ID: fmt.Sprintf("m%05d.api", i), Module: fmt.Sprintf("m%05d", i), Port: 8080, Policy: "two_choices"}
}

func deckInstance(i int) *instance {
	service := i % deckServices
	return &instance{
		Addr:    fmt.Sprintf("10.%d.%d.%d:8080", i>>16&255, i>>8&255, i&255),
		Service: fmt.Sprintf("m%05d.api", service), Device: fmt.Sprintf("device-%06d", i), Module: fmt.Sprintf("m%05d", service),
		Weight: 100, Share: 100, State: "up", Labels: map[string]string{"site": fmt.Sprintf("site-%02d", i%40)},
	}
}

type deck struct {
	*state.DB
	instances *state.Table[instance]
	modules   *state.Table[declared]
	services  *state.Table[routed]
	stop      func()
}

func newModules() *state.Table[declared] {
	return state.NewTable("module", func(m *declared) string { return m.Name },
		state.Index("calls", func(m *declared) []string { return m.Calls }), state.Index("business", func(m *declared) []string { return []string{m.Business} }))
}

func newServices() *state.Table[routed] {
	return state.NewTable("service", func(s *routed) string { return s.ID }, state.Index("module", func(s *routed) []string { return []string{s.Module} }))
}

func newDeck(b *testing.B, s store.Store) *deck {
	b.Helper()
	d := &deck{instances: state.NewTable("instance", func(i *instance) string { return i.Service + "/" + i.Addr },
		state.Index("service", func(i *instance) []string { return []string{i.Service} }),
		state.Index("device", func(i *instance) []string { return []string{i.Device} })), modules: newModules(), services: newServices()}
	var err error
	if d.DB, err = state.New(state.Config{Store: s, Tables: []state.Schema{d.instances, d.modules, d.services}}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	if err := d.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	return d
}

// fill puts the deck's instances, modules and services into a store. The embedded member takes large commits.
func fill(b *testing.B, s store.Store) {
	b.Helper()
	modules, services := newModules(), newServices()
	for at := 0; at < deckServices; at += 2000 {
		var ops []store.Op
		for i := at; i < min(at+2000, deckServices); i++ {
			key, value := modules.Encode(b, deckModule(i))
			ops = append(ops, store.Put(key, value))
			key, value = services.Encode(b, deckService(i))
			ops = append(ops, store.Put(key, value))
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	table := state.NewTable("instance", func(i *instance) string { return i.Service + "/" + i.Addr })
	for at := 0; at < deckInstances; at += 4000 {
		var ops []store.Op
		for i := at; i < min(at+4000, deckInstances); i++ {
			key, value := table.Encode(b, deckInstance(i))
			ops = append(ops, store.Put(key, value))
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			b.Fatal(err)
		}
	}
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkDeckScaleLoad is a server's start: the whole listing, decoded and indexed.
func BenchmarkDeckScaleLoad(b *testing.B) {
	for name, s := range map[string]store.Store{"memory": store.NewMemory(), "etcd": inEtcd(b)} {
		b.Run(name, func(b *testing.B) {
			if records, _, err := s.List(b.Context(), "instance/m00000"); err != nil || len(records) == 0 {
				fill(b, s)
			}
			b.ReportAllocs()
			before := heap()
			var after float64
			for b.Loop() {
				d := newDeck(b, s)
				b.StopTimer()
				if rows := count(d); rows != deckInstances {
					b.Fatalf("%d rows", rows)
				}
				after = heap()
				runtime.KeepAlive(d)
				d.stop()
				b.StartTimer()
			}
			b.ReportMetric((after-before)/(1<<20), "replica-MiB")
			b.ReportMetric((after-before)/deckInstances, "B/row")
		})
	}
}

func count(d *deck) int {
	n := 0
	for range d.instances.All(d.Snapshot()) {
		n++
	}
	return n
}

// BenchmarkDeckScaleLookup is what readers pay.
func BenchmarkDeckScaleLookup(b *testing.B) {
	s := store.NewMemory()
	fill(b, s)
	d := newDeck(b, s)
	defer d.stop()
	keys := make([]string, 4096)
	for i := range keys {
		row := deckInstance(i * 37 % deckInstances)
		keys[i] = row.Service + "/" + row.Addr
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok := d.instances.Get(d.Snapshot(), keys[i%len(keys)]); !ok {
				b.Fatal("missing")
			}
		}
	})
	b.Run("get/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, ok := d.instances.Get(d.Snapshot(), keys[i%len(keys)]); !ok {
					b.Error("missing")
				}
			}
		})
	})
	b.Run("by-service-of-12", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			n := 0
			for range d.instances.By(d.Snapshot(), "service", fmt.Sprintf("m%05d.api", i%deckServices)) {
				n++
			}
			if n < 12 {
				b.Fatal(n)
			}
		}
	})
	b.Run("callers-of-a-service", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			n := 0
			for row := range d.modules.By(d.Snapshot(), "calls", fmt.Sprintf("m%05d.api", i%deckServices)) {
				if _, ok := d.services.Get(d.Snapshot(), row.Value.Services[0]); ok {
					n++
				}
			}
			if n != 3 {
				b.Fatal(n)
			}
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = d.Snapshot().Revision()
		}
	})
}

// BenchmarkDeckScaleUpdate is a change of one row: its commit, its way through the watch, and its indexes.
func BenchmarkDeckScaleUpdate(b *testing.B) {
	for name, s := range map[string]store.Store{"memory": store.NewMemory(), "etcd": inEtcd(b)} {
		b.Run(name, func(b *testing.B) {
			if records, _, err := s.List(b.Context(), "instance/m00000"); err != nil || len(records) == 0 {
				fill(b, s)
			}
			d := newDeck(b, s)
			defer d.stop()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				row := deckInstance(i % deckInstances)
				row.Share = i % 100
				if _, err := d.Update(b.Context(), func(tx *state.Tx) error { d.instances.Put(tx, row); return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeckScaleCounters is why counters are no rows: the same increment, beside the row and in it.
func BenchmarkDeckScaleCounters(b *testing.B) {
	s := store.NewMemory()
	fill(b, s)
	d := newDeck(b, s)
	defer d.stop()
	b.Run("beside-the-row", func(b *testing.B) {
		counters := make([]atomic.Int64, deckInstances)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			counters[i%deckInstances].Add(1)
		}
	})
	b.Run("in-the-row", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			row := deckInstance(i % deckInstances)
			row.Weight = i
			if _, err := d.Update(b.Context(), func(tx *state.Tx) error { d.instances.Put(tx, row); return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDeckScaleStage applies a share of the deck's rows at once.
func BenchmarkDeckScaleStage(b *testing.B) {
	const rows = deckServices
	s := inEtcd(b)
	d := newDeck(b, s)
	defer d.stop()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		start := time.Now()
		if _, err := d.Stage(b.Context(), func(tx *state.Tx) error {
			for i := range rows {
				row := deckInstance(i)
				row.Share = n % 100
				d.instances.Put(tx, row)
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rows)/time.Since(start).Seconds(), "rows/s")
	}
}
