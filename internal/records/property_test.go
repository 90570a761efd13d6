package records_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// Whatever the ups and downs of the process: a bucket's sum is what was reported in it, and its status is complete
// exactly if the process was up from its first to its last millisecond. I7 rests on this.
func TestLoadIsExactAndGapsAreKnown(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		if fault := upsAndDowns(t, seed, func(*records.DB) {}); fault != "" {
			t.Errorf("seed %d: %s", seed, fault)
		}
	}
}

// I7: the model is worth something: blindness to gaps is found within 100 seeds.
func TestThePlantedBlindnessIsFound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		if fault := upsAndDowns(t, seed, (*records.DB).PlantBlindnessToGaps); fault != "" {
			t.Logf("found at seed %d: %s", seed, fault)
			return
		}
	}
	t.Error("100 seeds did not find the planted blindness to gaps")
}

// upsAndDowns runs a process that reports, stops and comes back, and says in what its record differs from the truth.
func upsAndDowns(t *testing.T, seed uint64, plant func(*records.DB)) (fault string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	const bucket = 100 // ms
	c := newClock()
	start := c.now()
	config := records.Config{Now: c.now, Beat: time.Hour, Bucket: bucket * time.Millisecond}
	path := filepath.Join(t.TempDir(), "r.db")
	var (
		db     *records.DB
		stop   = func() {}
		sums   = map[int64]int64{}
		upFrom int64
		spans  [][2]int64 // up, in ms since start
	)
	elapsed := func() int64 { return c.now().Sub(start).Milliseconds() }
	up := func() {
		db, stop = run(t, path, config)
		plant(db)
		settled(t, db)
		upFrom = elapsed()
	}
	up()
	for range 1 + rng.IntN(12) {
		switch []string{"report", "report", "wait", "restart"}[rng.IntN(4)] {
		case "report":
			n := 1 + rng.Int64N(100)
			if err := db.AddOutcomes(t.Context(), []records.OutcomeDelta{{Service: "s", Addr: "a:1", Requests: n}}); err != nil {
				t.Fatal(err)
			}
			sums[elapsed()/bucket] += n
		case "wait":
			c.move(time.Duration(1+rng.IntN(350)) * time.Millisecond)
		case "restart":
			stop()
			spans = append(spans, [2]int64{upFrom, elapsed()})
			c.move(time.Duration(rng.IntN(250)) * time.Millisecond)
			up()
		}
	}
	now := elapsed()
	spans = append(spans, [2]int64{upFrom, now})
	samples, err := db.Load(t.Context(), "s", start, c.now().Add(bucket*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range samples {
		from, to := int64(i)*bucket, min(int64(i+1)*bucket, now)
		seen := from
		for _, span := range spans { // in order; a restart without a pause in between hides nothing
			if span[0] <= seen {
				seen = max(seen, span[1])
			}
		}
		want := records.Gap
		switch {
		case seen < to:
		case int64(i+1)*bucket > now:
			want = records.Current
		default:
			want = records.Complete
		}
		if s.Requests != sums[int64(i)] || s.Status != want {
			fault = fmt.Sprintf("bucket %d: %d requests, %s; want %d, %s; up %v, now %d", i, s.Requests, s.Status, sums[int64(i)], want, spans, now)
		}
	}
	stop()
	return fault
}
