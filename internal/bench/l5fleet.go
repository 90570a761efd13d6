package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	harness "github.com/zhiyun-ops/zhiyun/internal/bench/fleet"
)

// fleet measures a name server with processes around it: its start, what streams cost it, and a change on its way to all.
func (s *suite) fleet(ctx context.Context) error {
	s.Progress("l5: a server's start")
	for _, kept := range []struct{ name, dir string }{{"memory", ""}, {"etcd", filepath.Join(s.dir, "etcd")}} {
		load, err := harness.Load(ctx, harness.LoadConfig{Instances: s.scaled(deckInstances), Services: s.scaled(deckServices), Dir: kept.dir})
		if err != nil {
			return err
		}
		s.add("l5.load."+kept.name, ms(load.Load), "ms", ms(max(load.List, 1)), "listing the records")
		s.add("l5.resident."+kept.name, mb(load.Settled), "MB", mb(load.Records), "the records' bytes; the store is in the process")
	}
	streams, crowds := s.scaled(1000), 2
	if s.Long {
		streams, crowds = 10_000, 4
	}
	s.Progress("l5: streams")
	got, err := harness.Streams(ctx, harness.StreamsConfig{Streams: streams, Crowds: crowds, Bare: true})
	if err != nil {
		return err
	}
	s.add(fmt.Sprintf("l5.stream.%d", streams), float64(max(got.PerStream, 1))/1000, "kB", float64(max(got.PerBare, 1))/1000, "a bare socket with a goroutine that reads")
	s.spread(fmt.Sprintf("l5.push.%d", streams), got)
	agents := max(2, s.scaled(1000)/10)
	dir, remove, err := harness.Dir()
	if err != nil {
		return err
	}
	defer remove()
	s.Progress("l5: streams behind agents")
	behind, err := harness.Streams(ctx, harness.StreamsConfig{Streams: s.scaled(1000), Agents: agents, Bare: true, Dir: dir})
	if err != nil {
		return err
	}
	s.spread(fmt.Sprintf("l5.push.%dx%d", agents, s.scaled(1000)/agents), behind)
	reports, err := harness.Reports(ctx, 5000, max(s.Span, 500*time.Millisecond))
	if err != nil {
		return err
	}
	s.add("l5.report", float64(max(reports.CPU, 1).Nanoseconds())/1e3, "us", float64(max(got.BareCPU, 1).Nanoseconds())/1e3, "processor time of a write to a bare socket")
	return nil
}

func (s *suite) spread(name string, got harness.StreamsFigures) {
	const against = "the same to bare TCP sockets, one after the other"
	s.add(name+".p50", ms(got.Push.P50), "ms", ms(got.BarePush.P50), against)
	s.add(name+".p99", ms(got.Push.P99), "ms", ms(got.BarePush.P99), against)
	s.add(name+".cpu", us(got.PushAll), "us", us(max(got.BareAll, 1)), "processor time of a message at either end, beside a bare socket's")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func mb(bytes int64) float64 { return float64(bytes) / (1 << 20) }
