package etcdstore_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/etcdstore"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	embedded "github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

// deckDocuments declares the fleet of the talk, or a part of it: 40 sites, 12,740 modules that call three others each,
// 161,679 devices.
func deckDocuments(b *testing.B, part int) []byte {
	b.Helper()
	modules, devices := 12_740/part, 161_679/part
	var objects []cmdb.Object
	for i := range 40 {
		objects = append(objects, &cmdb.Site{Name: fmt.Sprintf("site-%d", i), City: fmt.Sprintf("city-%d", i%10)})
	}
	for i := range 2 {
		objects = append(objects, &cmdb.DeviceType{Name: fmt.Sprintf("type-%d", i), Cores: 8 << i})
	}
	name := func(i int) string { return fmt.Sprintf("business%d.module-%d", i%100, i) }
	for i := range modules {
		m := &cmdb.Module{
			Name: name(i), Owner: "ops", Packages: []cmdb.PackageSpec{{Name: "server", Version: "1.2.3"}},
			Services:  []cmdb.ServiceSpec{{ID: name(i), Port: 8080, Weight: 100}},
			Processes: []cmdb.ProcessSpec{{Name: "server", Package: "server", Command: []string{"bin/server", "--port=8080"}, Count: 1}},
			Ports:     []cmdb.PortSpec{{Port: 8080, Protocol: "tcp", Process: "server"}},
			Scale:     cmdb.ScaleSpec{Min: 2, Max: 100, Capacity: map[string]float64{"type-0": 500, "type-1": 900}},
		}
		for k := 1; k <= 3; k++ {
			m.Permissions = append(m.Permissions, name((i*11+k*4001)%modules))
		}
		objects = append(objects, m)
	}
	for i := range devices {
		objects = append(objects, &cmdb.Device{
			Name: fmt.Sprintf("device-%d", i), Addr: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Site: fmt.Sprintf("site-%d", i%40),
			Type: fmt.Sprintf("type-%d", i%2), Labels: map[string]string{"rack": fmt.Sprint(i / 40)},
		})
	}
	text, err := cmdb.YAML(objects...)
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// BenchmarkDeckApply is the whole deck applied at once to an empty CMDB: read from YAML, checked, planned, written, seen.
// DECK_PART=10 takes a tenth of it.
func BenchmarkDeckApply(b *testing.B) {
	part := 1
	if text := os.Getenv("DECK_PART"); text != "" {
		var err error
		if part, err = strconv.Atoi(text); err != nil || part < 1 {
			b.Fatalf("DECK_PART=%q: want a number from 1", text)
		}
	}
	text := deckDocuments(b, part)
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			deckApply(b, memstore.New(), text)
		}
	})
	b.Run("etcd", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			member, err := embedded.Embedded(embedded.EmbeddedConfig{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			if err := member.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = member.Run(ctx) })
			b.StartTimer()
			deckApply(b, etcdstore.New(member.Client(), "/zhiyun/cmdb/"), text)
			b.StopTimer()
			cancel()
			running.Wait()
			member.Close()
			b.StartTimer()
		}
	})
}

// deckApply plans and applies text, and reports how long each took and what the process held at most.
func deckApply(b *testing.B, s cmdb.Store, text []byte) {
	b.Helper()
	db, err := cmdb.New(cmdb.Config{Store: s})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = db.Run(ctx) })
	defer running.Wait()
	defer cancel()
	if err := db.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	most := uint64(0)
	sample := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
	}
	sampling := make(chan struct{})
	running.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sample()
			case <-sampling:
				return
			}
		}
	})
	start := time.Now()
	plan, err := db.Plan(ctx, cmdb.Documents(text))
	if err != nil {
		b.Fatal(err)
	}
	planned := time.Now()
	if _, err := db.Apply(ctx, plan, cmdb.By("bench")); err != nil {
		b.Fatal(err)
	}
	applied := time.Now()
	again, err := db.Plan(ctx, cmdb.Documents(text))
	if err != nil || !again.Empty() {
		b.Fatalf("planned again, it is not empty: %v", err)
	}
	close(sampling)
	b.ReportMetric(planned.Sub(start).Seconds(), "plan-s")
	b.ReportMetric(applied.Sub(planned).Seconds(), "apply-s")
	b.ReportMetric(time.Since(applied).Seconds(), "plan-again-s")
	b.ReportMetric(float64(most)/(1<<20), "heap-MiB")
}
