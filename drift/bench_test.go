package drift_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/memstore"
)

// tree makes a device of n files of 4 KiB, ten to a directory, and its declaration.
func tree(b *testing.B, n int) (string, drift.State) {
	b.Helper()
	root := b.TempDir()
	content := make([]byte, 4096)
	state := drift.State{Files: make(map[string]drift.File, n)}
	for i := range n {
		name := fmt.Sprintf("d%d/e%d/f%d", i/1000, i/10, i)
		if i%10 == 0 {
			try(b, os.MkdirAll(fmt.Sprintf("%s/d%d/e%d", root, i/1000, i/10), 0o755))
		}
		copy(content, name)
		try(b, os.WriteFile(root+"/"+name, content, 0o644))
		state.Files[name] = drift.File{Digest: drift.Digest(content), Mode: 0o644}
	}
	return root, state
}

const benchFiles = 10_000

// A first look: every file is hashed.
func BenchmarkFullScan10k(b *testing.B) {
	root, state := tree(b, benchFiles)
	b.ReportAllocs()
	for b.Loop() {
		collect(b, drift.Files(root), state)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchFiles, "ns/file")
}

// A rescan: nothing has changed, so nothing is hashed.
func BenchmarkStatSweep10k(b *testing.B) {
	root, state := tree(b, benchFiles)
	collector := drift.Files(root)
	for range 3 { // hashes of files younger than a clock tick are not kept: they are by the second or third look
		collect(b, collector, state)
	}
	b.ReportAllocs()
	for b.Loop() {
		collect(b, collector, state)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchFiles, "ns/file")
}

func BenchmarkCompare10k(b *testing.B) {
	state := drift.State{Files: make(map[string]drift.File)}
	for i := range benchFiles {
		state.Files[fmt.Sprintf("d%d/f%d", i/10, i)] = drift.File{Digest: drift.Digest([]byte{byte(i)}), Mode: 0o644}
	}
	live := drift.State{Files: make(map[string]drift.File)}
	for name, f := range state.Files {
		live.Files[name] = f
	}
	b.ReportAllocs()
	for b.Loop() {
		if found := drift.Compare(state, live); len(found) != 0 {
			b.Fatal(found)
		}
	}
}

// One changed file, from the event on: look, compare, decide.
func BenchmarkLookAtOneOf10k(b *testing.B) {
	root, state := tree(b, benchFiles)
	collector := drift.Files(root)
	collect(b, collector, state)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := collector.Collect(context.Background(), state, []string{"d3/e345/f3456"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListeningPorts(b *testing.B) {
	want := drift.State{Ports: []drift.Port{{Port: 80}}}
	collector := drift.Ports("127.0.0.1", nil)
	b.ReportAllocs()
	for b.Loop() {
		collect(b, collector, want)
	}
}

func BenchmarkProcesses(b *testing.B) {
	collector := drift.Processes(drift.Proc(b.TempDir()))
	b.ReportAllocs()
	for b.Loop() {
		collect(b, collector, drift.State{})
	}
}

func BenchmarkLedgerUnchangedReport(b *testing.B) {
	l, err := drift.NewLedger(drift.LedgerConfig{Store: memstore.New()})
	try(b, err)
	r := report("d1", 0, differing("etc/a"), differing("etc/b"))
	try(b, l.Report(context.Background(), r))
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Report(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}
