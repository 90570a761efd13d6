package table_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// The deck's size: 12,740 modules on 161,679 devices.
const deckServices, deckInstances = 12_740, 161_679

// deck makes the entries of a device that calls all of it: a fifth of the addresses are IPv6, each device has its own
// name, site and city are labels.
func deck() []table.Entry {
	entries := make([]table.Entry, 0, deckServices)
	for service, device := 0, 0; service < deckServices; service++ {
		module := fmt.Sprintf("business-%03d.module-%05d", service%150, service)
		var instances []*l5pb.Instance
		for ; device < deckInstances*(service+1)/deckServices; device++ {
			addr := fmt.Sprintf("10.%d.%d.%d:%d", device>>16, device>>8&255, device&255, 8000+service%1000)
			if device%5 == 0 {
				addr = fmt.Sprintf("[2001:db8:%x::%x]:%d", device>>16, device&0xffff, 8000+service%1000)
			}
			name := fmt.Sprintf("device-%06d", device)
			instances = append(instances, &l5pb.Instance{
				Addr: addr, Device: name, Owner: name, Module: module, Weight: 100, Share: proto.Uint32(100), State: l5pb.State_STATE_UP,
				Labels: map[string]string{"site": fmt.Sprintf("site-%02d", device%40), "city": fmt.Sprintf("city-%02d", device%40/4)},
			})
		}
		entries = append(entries, entry(module+".api", []string{"shop.web"}, instances...))
	}
	return entries
}

// BenchmarkDeck makes, writes and reads the table of a device that calls everything. Bytes per instance are of the
// files, and of the whole pages that they are mapped by.
func BenchmarkDeck(b *testing.B) {
	entries := deck()
	by := make(map[int][]table.Entry)
	for _, e := range entries {
		at := table.SegmentOf(e.View.Service)
		by[at] = append(by[at], e)
	}
	segments := make(map[int][]byte)
	var size, pages int
	for segment, held := range by {
		content, err := table.Encode(table.Head{Segment: segment, Written: time.Now()}, held)
		if err != nil {
			b.Fatal(err)
		}
		segments[segment] = content
		size += len(content)
		pages += (len(content) + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	}
	folder, err := table.Make(b.TempDir(), os.Geteuid())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("write-all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := table.Write(folder, os.Geteuid(), segments); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(size)/deckInstances, "B/instance")
		b.ReportMetric(float64(pages)/deckInstances, "mapped-B/instance")
	})
	one := table.SegmentOf(entries[0].View.Service)
	b.Run("change-one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			content, err := table.Encode(table.Head{Segment: one, Written: time.Now()}, by[one])
			if err != nil {
				b.Fatal(err)
			}
			if err := table.Write(folder, os.Geteuid(), map[int][]byte{one: content}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode-one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := table.Encode(table.Head{Segment: one, Written: time.Now()}, by[one]); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(segments[one])), "B")
	})
	b.Run("find", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, err := table.Find(folder, "shop.web", entries[i*97%deckServices].View.Service); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("load-all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			if err := table.Load(folder, os.Geteuid(), func(e table.Entry) { n += len(e.View.Instances) }); err != nil || n != deckInstances {
				b.Fatal(n, err)
			}
		}
	})
	if files, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(files) != table.Segments+1 {
		b.Errorf("%d files, %v", len(files), err)
	}
}
