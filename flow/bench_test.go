package flow_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// chain is a flow of n steps, each of which takes the output of the one before.
func chain(n int) string {
	var b strings.Builder
	b.WriteString("flow: chain\nparams: {wf: string}\nsteps:\n")
	for i := range n {
		from := `"0"`
		if i > 0 {
			from = fmt.Sprintf(`"${steps.s%d.text}"`, i-1)
		}
		fmt.Fprintf(&b, "  - {name: s%d, tool: step, with: {wf: \"${params.wf}\", from: %s, step: %d}}\n", i, from, i)
	}
	return b.String()
}

func stepTool(tools *flow.Tools) {
	flow.Func(tools, "step", func(_ context.Context, in struct {
		WF   string `json:"wf"`
		From string `json:"from"`
		Step int    `json:"step"`
	}) (struct {
		Text string `json:"text"`
	}, error) {
		return struct {
			Text string `json:"text"`
		}{"ok"}, nil
	}, flow.WithEffect(flow.Keyed))
}

// BenchmarkFlow23Steps runs flows of 23 steps on SQLite at synchronous=FULL and on PostgreSQL, so many at a time; beside it, floor is 23 times a write and fdatasync
// of the bytes that a step takes. Compare ns/op of inflight=1 with floor, and steps/s of inflight=64.
func BenchmarkFlow23Steps(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		file, err := os.Create(filepath.Join(b.TempDir(), "floor"))
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		block := make([]byte, 4096)
		for b.Loop() {
			for range 23 {
				if _, err := file.Write(block); err != nil {
					b.Fatal(err)
				}
				if err := fdatasync(file); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("sqlite", func(b *testing.B) {
		flow23(b, func(b *testing.B) closer {
			store, err := sqlitestore.Open(filepath.Join(b.TempDir(), "flow.db"))
			if err != nil {
				b.Fatal(err)
			}
			return store
		})
	})
	b.Run("postgres", func(b *testing.B) {
		server := pgtest.Start(b)
		flow23(b, func(b *testing.B) closer {
			store, err := pgstore.Open(b.Context(), server.Database(b))
			if err != nil {
				b.Fatal(err)
			}
			return store
		})
	})
}

type closer interface {
	flow.Store
	Close() error
}

func flow23(b *testing.B, open func(b *testing.B) closer) {
	for _, inflight := range []int{1, 64} {
		b.Run(fmt.Sprintf("inflight=%d", inflight), func(b *testing.B) {
			store := open(b)
			defer store.Close()
			tools := flow.NewTools()
			stepTool(tools)
			engine, err := flow.New(flow.Config{Store: store, Tools: tools})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := engine.Save(b.Context(), []byte(chain(23))); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- engine.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					b.Error(err)
				}
			}()
			b.ReportAllocs()
			b.SetParallelism(max(1, inflight/2)) // times GOMAXPROCS
			began, spent := time.Now(), cpuTime(b)
			b.ResetTimer()
			one := func() {
				id, err := engine.Start(b.Context(), "chain", map[string]any{"wf": "w"})
				if err != nil {
					b.Error(err)
					return
				}
				if x, err := engine.Wait(b.Context(), id); err != nil || x.State != flow.Done {
					b.Error(x.State, err)
				}
			}
			if inflight == 1 {
				for range b.N {
					one()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						one()
					}
				})
			}
			b.ReportMetric(float64(b.N*23)/time.Since(began).Seconds(), "steps/s")
			b.ReportMetric(float64((cpuTime(b)-spent).Microseconds())/float64(b.N*23), "cpu-us/step")
		})
	}
}

// cpuTime is what this process has used of all processors. It moves less with the neighbours' load than the clock does.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
