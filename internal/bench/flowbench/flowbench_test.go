package flowbench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

func TestMain(m *testing.M) {
	flowbench.Main()
	os.Exit(m.Run())
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	load, err := flowbench.Run(t.Context(), store, 8, time.Millisecond)
	if err != nil || load.Flows < 8 || load.Commits <= 0 || load.Commits > 1.1 || load.P99 < load.P50 || load.Rate <= 0 || load.Start.P50 < 1 {
		t.Fatalf("%+v, %v", load, err)
	}
	bare, err := flowbench.BareSQLite(dir, 8, time.Millisecond)
	if err != nil || bare.Rate <= 0 {
		t.Fatalf("%+v, %v", bare, err)
	}
}

// Nothing that was done is done again after a kill, and what was in flight passes "in doubt".
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const flows = 64
	got, err := flowbench.Kill(t.Context(), filepath.Join(dir, "calm.db"), filepath.Join(dir, "flow.db"), flows, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Again != 0 || got.Doubt == 0 || got.Doubt > flows {
		t.Errorf("%d steps that were done ran again, %d were in doubt, of %d flows", got.Again, got.Doubt, flows)
	}
	t.Logf("first step after %s (a new process: %s), all after %s (undisturbed rest: %s), %d in doubt", got.First, got.Bare, got.All, got.Rest, got.Doubt)
}

func TestNodes(t *testing.T) {
	t.Parallel()
	for _, shape := range flowbench.Shapes {
		if perNode, err := flowbench.Nodes(t.Context(), shape, 2, 30); err != nil || perNode <= 0 {
			t.Errorf("%s: %s a node, %v", shape, perNode, err)
		}
	}
}

func TestExpress(t *testing.T) {
	t.Parallel()
	got, err := flowbench.Express(t.Context(), 3)
	if err != nil || got.Ordinary <= 0 || got.Constant <= 0 || got.Hostile <= 0 || got.Harmless <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDefine(t *testing.T) {
	t.Parallel()
	got, err := flowbench.Define(t.Context(), 1000, 1003)
	if err != nil || got.Good != 3 || got.Taken != got.Good || got.Broken < 10 || got.Refused != got.Broken {
		t.Errorf("%+v, %v", got, err)
	}
}

// BenchmarkIdle parks executions that wait for a time, and reports what a process costs that has them, and nothing in it but an engine and its store.
func BenchmarkIdle(b *testing.B) {
	dir := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, "./waiter/...").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			dsn := ""
			if kind == "postgres" {
				dsn = pgtest.Start(b).Database(b)
			}
			place, err := flowbench.NewPlace(b.Context(), b.TempDir(), dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer place.Close(context.WithoutCancel(b.Context()))
			for _, parked := range []int{0, 10_000} {
				b.Run(fmt.Sprintf("parked=%d", parked), func(b *testing.B) {
					name, err := place.Store(b.Context(), fmt.Sprintf("parked_%d_%d", parked, time.Now().UnixNano()))
					if err != nil {
						b.Fatal(err)
					}
					if err := flowbench.Park(b.Context(), name, parked); err != nil {
						b.Fatal(err)
					}
					for range b.N {
						idle, err := flowbench.WaitIn(b.Context(), filepath.Join(dir, kind), name, 3*time.Second)
						if err != nil {
							b.Fatal(err)
						}
						b.ReportMetric(idle.CPU*100, "%core")
						b.ReportMetric(float64(idle.RSS)/(1<<20), "MB")
					}
				})
			}
		})
	}
}
