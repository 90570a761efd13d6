package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

const deckServices, deckInstances = 12_740, 161_679

func deckService(i int) string { return fmt.Sprintf("business-%03d.module-%05d.api", i%150, i) }

// deckTable writes the table of a device on which test.caller calls every service of the deck, as an agent would have.
func deckTable(b *testing.B, dir string) {
	by := make(map[int][]table.Entry)
	for i, device := 0, 0; i < deckServices; i++ {
		s := &l5pb.Snapshot{Service: deckService(i), Epoch: "e", Revision: int64(i + 1)}
		for ; device < deckInstances*(i+1)/deckServices; device++ {
			addr, name := fmt.Sprintf("10.%d.%d.%d:80", device>>16, device>>8&255, device&255), fmt.Sprintf("device-%06d", device)
			if device%5 == 0 {
				addr = fmt.Sprintf("[2001:db8:%x::%x]:80", device>>16, device&0xffff)
			}
			s.Instances = append(s.Instances, &l5pb.Instance{
				Addr: addr, Device: name, Owner: name, Module: strings.TrimSuffix(s.Service, ".api"), Weight: 100, Share: proto.Uint32(100),
				State: l5pb.State_STATE_UP, Labels: map[string]string{"site": fmt.Sprintf("site-%02d", device%40), "city": fmt.Sprintf("city-%02d", device%40/4)},
			})
		}
		at := table.SegmentOf(s.Service)
		by[at] = append(by[at], table.Entry{View: view.Of(s), Callers: []string{"test.caller"}})
	}
	folder, err := table.Make(dir, os.Geteuid())
	if err != nil {
		b.Fatal(err)
	}
	files := make(map[int][]byte)
	for segment, entries := range by {
		if files[segment], err = table.Encode(table.Head{Segment: segment, Written: time.Now()}, entries); err != nil {
			b.Fatal(err)
		}
	}
	if err := table.Write(folder, os.Geteuid(), files); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDeck starts an agent on the table of a device that calls all of the deck, in a process of its own, and programs
// that call 10 services each. Memory is what the kernel counts: resident sets, and the files that all share.
func BenchmarkDeck(b *testing.B) {
	if dir := os.Getenv("L5_BENCH_AGENT"); dir != "" {
		deckAgent(b, dir)
		return
	}
	if target := os.Getenv("L5_BENCH_CALLER"); target != "" {
		deckCaller(b, target)
		return
	}
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	deckTable(b, filepath.Join(dir, "t"))
	var size int64
	files, err := filepath.Glob(filepath.Join(dir, "t", "*", "*.routes"))
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	child := func(env ...string) map[string]float64 {
		process := exec.Command(os.Args[0], "-test.run=XXX", "-test.bench=^BenchmarkDeck$", "-test.benchtime=1x")
		process.Env = append(os.Environ(), env...)
		output, err := process.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, output)
		}
		return figures(string(output))
	}
	for b.Loop() {
		agent := child("L5_BENCH_AGENT=" + dir)
		b.ReportMetric(float64(size)/deckInstances, "table-B/instance")
		b.ReportMetric(agent["start"], "agent-start-ms")
		b.ReportMetric(agent["rss"]/1024, "agent-MB")
		b.ReportMetric(agent["heap"]/1024, "agent-heap-MB")
		b.ReportMetric(agent["caller"]/1024, "caller-MB")
		b.ReportMetric(agent["empty"]/1024, "caller-without-MB")
	}
}

// figures reads lines such as "figure rss=17".
func figures(output string) map[string]float64 {
	out := make(map[string]float64)
	for line := range strings.Lines(output) {
		if _, pair, ok := strings.Cut(strings.TrimSpace(line), "figure "); ok {
			name, value, _ := strings.Cut(pair, "=")
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out
}

// rss is the resident set of this process in KB.
func rss(b *testing.B) int64 {
	runtime.GC()
	runtime.GC()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc: ", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb
		}
	}
	return 0
}

func deckAgent(b *testing.B, dir string) {
	begin := time.Now()
	a, stop := l5test.Agent(b, "unix:///nowhere/server.sock", func(c *agent.Config) {
		c.Table, c.Socket, c.SnapshotFile = filepath.Join(dir, "t"), filepath.Join(dir, "s"), ""
	})
	fmt.Printf("\nfigure start=%d\n", time.Since(begin).Milliseconds())
	caller := func(env ...string) float64 {
		process := exec.Command(os.Args[0], "-test.run=XXX", "-test.bench=^BenchmarkDeck$", "-test.benchtime=1x")
		process.Env = append(os.Environ(), append(env, "L5_BENCH_AGENT=", "L5_BENCH_CALLER="+a.Target())...)
		output, err := process.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, output)
		}
		return figures(string(output))["rss"]
	}
	fmt.Printf("figure caller=%g\nfigure empty=%g\n", caller(), caller("L5_BENCH_IDLE=1"))
	fmt.Printf("figure rss=%d\n", rss(b))
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fmt.Printf("figure heap=%d\n", memory.HeapAlloc>>10)
	if path := os.Getenv("L5_BENCH_HEAP"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(pprof.WriteHeapProfile(f), f.Close()); err != nil {
			b.Fatal(err)
		}
	}
	stop()
}

func deckCaller(b *testing.B, target string) {
	c := l5test.Client(b, target, nil)
	if os.Getenv("L5_BENCH_IDLE") == "" {
		ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
		defer cancel()
		for i := range 10 {
			r, err := c.Route(ctx, deckService(i*1000))
			if err != nil {
				b.Fatal(err)
			}
			r.Done(l5.Outcome{})
		}
	}
	fmt.Printf("\nfigure rss=%d\n", rss(b))
}
