package bench_test

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/bench"
	"github.com/zhiyun-ops/zhiyun/internal/bench/fleet"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
)

func TestMain(m *testing.M) {
	fleet.Main()
	flowbench.Main()
	os.Exit(m.Run())
}

// The tiny form of every package gives rows that are whole, in the order of the packages.
func TestRowsAreWhole(t *testing.T) {
	t.Parallel()
	rows, err := bench.Run(t.Context(), bench.Config{Span: time.Millisecond, Part: 0.001})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, row := range rows {
		name, what, ok := strings.Cut(row.Name, ".")
		if !ok || what == "" || row.Unit == "" || row.Against == "" {
			t.Errorf("row %+v lacks a name, a unit or what its floor is", row)
		}
		for _, number := range []float64{row.Value, row.Floor, row.Ratio} {
			if !(number > 0) || math.IsInf(number, 0) {
				t.Errorf("row %s: %v", row.Name, row)
			}
		}
		seen = append(seen, name)
	}
	if diff := cmp.Diff(bench.Packages(), slices.Compact(seen)); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}

func TestFaultsComeTogether(t *testing.T) {
	t.Parallel()
	_, err := bench.Run(t.Context(), bench.Config{Packages: []string{"disk"}, Part: 2})
	if err == nil || !strings.Contains(err.Error(), `"disk"`) || !strings.Contains(err.Error(), "Part 2") {
		t.Fatalf("error %v does not name both faults", err)
	}
}
