package cmdb_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// The fleet of the talk: 40 sites, 12,740 modules that call three others each, 161,679 devices.
const (
	deckSites   = 40
	deckModules = 12_740
	deckDevices = 161_679
)

func deckModule(i int) *cmdb.Module {
	name := fmt.Sprintf("business%d.module-%d", i%100, i)
	m := &cmdb.Module{Name: name, Owner: "ops", Packages: []cmdb.PackageSpec{{Name: "server", Version: "1.2.3"}},
		Services:  []cmdb.ServiceSpec{{ID: name, Port: 8080, Weight: 100}},
		Processes: []cmdb.ProcessSpec{{Name: "server", Package: "server", Command: []string{"bin/server", "--port=8080"}, Count: 1}},
		Ports:     []cmdb.PortSpec{{Port: 8080, Protocol: "tcp", Process: "server"}},
		Scale:     cmdb.ScaleSpec{Min: 2, Max: 100, Capacity: map[string]float64{"type-0": 500, "type-1": 900}},
		Meta:      cmdb.Meta{Version: 1, Action: "create", Actor: "bench", At: time.Unix(1767323045, 0).UTC()}}
	for k := 1; k <= 3; k++ {
		j := (i*11 + k*4001) % deckModules
		m.Permissions = append(m.Permissions, fmt.Sprintf("business%d.module-%d", j%100, j))
	}
	return m
}

func deckDevice(i int) *cmdb.Device {
	m := i * 31 % deckModules
	return &cmdb.Device{Name: fmt.Sprintf("device-%d", i), Addr: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Site: fmt.Sprintf("site-%d", i%deckSites),
		Type: fmt.Sprintf("type-%d", i%2), State: cmdb.InService, Module: fmt.Sprintf("business%d.module-%d", m%100, m), Labels: map[string]string{"rack": fmt.Sprint(i / 40)},
		Since: time.Unix(1767323045, 0).UTC(), Meta: cmdb.Meta{Version: 1, Action: "create", Actor: "bench", At: time.Unix(1767323045, 0).UTC()}}
}

// deckStore is a store that holds the fleet, as a server finds it when it starts.
var deckStore = sync.OnceValue(func() cmdb.Store {
	s := memstore.New()
	var ops []store.Op
	flush := func(limit int) {
		if len(ops) <= limit {
			return
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			panic(err)
		}
		ops = ops[:0]
	}
	put := func(o cmdb.Object) {
		data, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		ops = append(ops, store.Put("live/"+o.Ref().String(), data))
		flush(100)
	}
	for i := range deckSites {
		put(&cmdb.Site{Name: fmt.Sprintf("site-%d", i), City: fmt.Sprintf("city-%d", i%10)})
	}
	for i := range 2 {
		put(&cmdb.DeviceType{Name: fmt.Sprintf("type-%d", i), Cores: 8 << i})
	}
	for i := range deckModules {
		put(deckModule(i))
	}
	for i := range deckDevices {
		put(deckDevice(i))
	}
	flush(0)
	return s
})

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkDeckScaleLoad is a server's start: list, decode, index.
func BenchmarkDeckScaleLoad(b *testing.B) {
	s := deckStore()
	b.ReportAllocs()
	for b.Loop() {
		before := heap()
		db := run(b, s)
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
		db.stop()
	}
}

var deckDB = sync.OnceValue(func() *cmdb.DB {
	db, err := cmdb.New(cmdb.Config{Store: deckStore()})
	if err != nil {
		panic(err)
	}
	go func() { _ = db.Run(context.Background()) }() // until the benchmarks' process ends
	if err := db.Ready(context.Background()); err != nil {
		panic(err)
	}
	return db
})

func BenchmarkDeckScaleGet(b *testing.B) {
	db := deckDB()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("device-%d", i*161)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := db.Device(names[i%1000]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkDeckScaleDevicesOfModule(b *testing.B) {
	db := deckDB()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("business%d.module-%d", i*12%100, i*12)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if got := db.Devices(cmdb.DeviceFilter{Module: names[i%1000], State: cmdb.InService}); len(got) < 12 {
			b.Fatal(len(got))
		}
		i++
	}
}

func BenchmarkDeckScaleUpdate(b *testing.B) {
	db := deckDB()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		name := fmt.Sprintf("device-%d", i%1000)
		if _, err := db.Hold(b.Context(), "bench", []string{name}, time.Hour); err != nil {
			b.Fatal(err)
		}
		if err := db.Serve(b.Context(), "bench", name, ""); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/update")
}

func BenchmarkDeckScaleBlastRadius(b *testing.B) {
	db := deckDB()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m := i * 12 % deckModules
		if got, err := db.BlastRadius(cmdb.KindModule, fmt.Sprintf("business%d.module-%d", m%100, m)); err != nil || len(got.Devices) < 12 || len(got.Callers) < 2 {
			b.Fatal(got, err)
		}
		i++
	}
}

// BenchmarkDeckScalePlan is the plan of one changed module in a folder of a thousand.
func BenchmarkDeckScalePlan(b *testing.B) {
	db := deckDB()
	objects := make([]cmdb.Object, 1000)
	for i := range objects {
		m := deckModule(i)
		if i == 500 {
			m.Packages[0].Version = "1.2.4"
		}
		objects[i] = m
	}
	text, err := cmdb.YAML(objects...)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		plan, err := db.Plan(b.Context(), cmdb.Documents(text))
		if err != nil || len(plan.Changes) != 1 {
			b.Fatal(plan, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text, err := cmdb.YAML(deckModule(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := cmdb.Parse(cmdb.Document{Name: "b", Data: text}); err != nil {
			b.Fatal(err)
		}
	}
}
