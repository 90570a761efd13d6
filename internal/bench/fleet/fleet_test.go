package fleet_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/bench/fleet"
)

func TestMain(m *testing.M) {
	fleet.Main()
	os.Exit(m.Run())
}

// scale is how many streams there are: a few, or ZHIYUN_STREAMS.
func scale(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("ZHIYUN_STREAMS"))
	if err != nil || n < 1 {
		n = 40
	}
	return n
}

func dir(t *testing.T) string {
	t.Helper()
	d, remove, err := fleet.Dir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return d
}

func TestStreams(t *testing.T) {
	n := scale(t)
	got, err := fleet.Streams(t.Context(), fleet.StreamsConfig{Streams: n, Crowds: 2 + n/4000, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d streams: %d bytes each; push %+v, %v CPU each; bare sockets %+v, %v", n, got.PerStream, got.Push, got.PushCPU, got.BarePush, got.BareCPU)
	if got.Push.P50 <= 0 || got.BarePush.P50 <= 0 {
		t.Error("nothing was measured")
	}
}

func TestStreamsBehindAgents(t *testing.T) {
	n := scale(t)
	got, err := fleet.Streams(t.Context(), fleet.StreamsConfig{Streams: n, Agents: max(1, n/10), Dir: dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d streams behind %d agents: push %+v", n, max(1, n/10), got.Push)
}

// After a restart of the server over its store everyone comes back, and nobody is sent what it has.
func TestRestart(t *testing.T) {
	n := scale(t)
	got, err := fleet.Streams(t.Context(), fleet.StreamsConfig{Streams: n, Crowds: 2 + n/4000, Changes: 3, Restart: true, Dir: dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d streams: all back after %v, at most %d in 100 ms, %d snapshots", n, got.Back, got.Peak, got.Snapshots)
	if got.Snapshots > 0 {
		t.Errorf("%d snapshots were sent although nothing had changed", got.Snapshots)
	}
}

func TestLoad(t *testing.T) {
	instances, services := 1000, 100
	if os.Getenv("ZHIYUN_LONG") != "" {
		instances, services = 161_679, 12_740
	}
	for name, d := range map[string]string{"memory": "", "etcd": dir(t)} {
		got, err := fleet.Load(t.Context(), fleet.LoadConfig{Instances: instances, Services: services, Dir: d})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d instances in %v; the process has %d MB, settled %d MB, heap %d MB", name, instances, got.Load, got.Resident>>20, got.Settled>>20, got.Heap>>20)
	}
}

func TestReports(t *testing.T) {
	got, err := fleet.Reports(t.Context(), 5000, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f reports/s, %v CPU each", got.PerSecond, got.CPU)
}
