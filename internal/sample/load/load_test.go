package load_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/sample/load"
)

// play runs a generator in virtual time.
func play(t *testing.T, config load.Config, script func(g *load.Generator)) load.Report {
	t.Helper()
	g, err := load.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	script(g)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return g.Report()
}

func TestOpenLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The service stands still for a second: an open loop sends on, and the wait is in the figures.
		begun := time.Now()
		call := func(context.Context) error {
			if since := time.Since(begun); since < time.Second {
				time.Sleep(time.Second - since)
			}
			return nil
		}
		report := play(t, load.Config{Call: call, Even: true}, func(g *load.Generator) {
			g.SetPhase(load.Phase{Name: "calm", Rate: 100})
			time.Sleep(2*time.Second + time.Millisecond)
			g.SetPhase(load.Phase{Name: "burst", Rate: 300})
			time.Sleep(time.Second + time.Millisecond)
			g.SetPhase(load.Phase{Name: "end", Rate: 0})
			time.Sleep(time.Hour)
		})
		calm, burst := report.Phase("calm"), report.Phase("burst")
		if calm.Sent != 200 || calm.OK != 200 || burst.Sent != 300 || report.Phase("end").Sent != 0 {
			t.Errorf("calm %+v, burst %+v", calm, burst)
		}
		if got := calm.Latency.Max(); got != 990*time.Millisecond {
			t.Errorf("the first request waited %v", got)
		}
		if p := calm.Latency.Quantile(0.75); p < 480*time.Millisecond || p > 520*time.Millisecond {
			t.Errorf("p75 %v", p)
		}
		if burst.Latency.Max() > time.Millisecond {
			t.Errorf("burst max %v", burst.Latency.Max())
		}
		if total := report.Total(); total.Sent != 500 || total.OK+total.Failed != 500 {
			t.Errorf("total %+v", total)
		}
	})
}

func TestFailuresTimeoutsAndDropsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		var heard atomic.Int64
		call := func(ctx context.Context) error {
			if n.Add(1)%2 == 0 {
				return errors.New("refused")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		report := play(t, load.Config{Call: call, Even: true, Timeout: 10 * time.Second, MaxOutstanding: 5,
			OnFailure: func(error) { heard.Add(1) }}, func(g *load.Generator) {
			if err := g.Control(strings.NewReader("one 10\n\n")); err != nil {
				t.Error(err)
			}
			time.Sleep(5*time.Second + time.Millisecond)
		})
		one := report.Phase("one")
		// Every other call hangs: after nine, five are outstanding and the rest is dropped.
		if one.Sent != 9 || one.Failed != 9 || one.Dropped != 41 || one.OK != 0 || heard.Load() != 9 {
			t.Errorf("%+v, heard %d", one, heard.Load())
		}
		slices.Sort(one.Errors)
		if diff := cmp.Diff([]string{"context deadline exceeded", "refused"}, one.Errors); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheSeedIsTheSchedule(t *testing.T) {
	t.Parallel()
	moments := func(seed uint64) []time.Duration {
		s := load.NewSchedule(seed, true)
		s.SetRate(0, 1000)
		var all []time.Duration
		for range 10_000 {
			at, ok := s.Next()
			if !ok {
				t.Fatal("no next")
			}
			all = append(all, at)
			s.Advance()
		}
		return all
	}
	one := moments(1)
	if !slices.Equal(one, moments(1)) || slices.Equal(one, moments(2)) || !slices.IsSorted(one) {
		t.Error("the schedule is not a function of its seed")
	}
	if last := one[len(one)-1]; last < 9500*time.Millisecond || last > 10500*time.Millisecond {
		t.Errorf("10,000 requests at 1000/s took %v", last)
	}
}

func TestControlAndConfigFaults(t *testing.T) {
	t.Parallel()
	if _, err := load.New(load.Config{Timeout: -1, MaxOutstanding: -1}); err == nil ||
		!strings.Contains(err.Error(), "Call") || !strings.Contains(err.Error(), "Timeout") || !strings.Contains(err.Error(), "MaxOutstanding") {
		t.Error(err)
	}
	g, err := load.New(load.Config{Call: func(context.Context) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"burst", "burst fast", "burst -1", "burst NaN", "burst 1e9", "a b c"} {
		if err := g.Control(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestHistogramIsWithinThreePercent(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var a, b, all load.Histogram
	var exact []time.Duration
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(50*time.Millisecond)).Truncate(time.Microsecond)
		exact = append(exact, d)
		all.Add(d)
		if i%2 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	text, err := json.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	var back load.Histogram
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	a.Merge(&back)
	slices.Sort(exact)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
		want := exact[max(0, int(q*10_000)-1)]
		if got := all.Quantile(q); got != a.Quantile(q) || got < want || float64(got) > float64(want)*1.035+2000 {
			t.Errorf("q %v: %v, merged %v, exact %v", q, got, a.Quantile(q), want)
		}
	}
	if a.Count() != 10_000 || a.Max() != exact[9999] || a.Mean() != all.Mean() {
		t.Error(a.Count(), a.Max(), a.Mean())
	}
	var large load.Histogram
	large.Add(100 * time.Hour)
	large.Add(-time.Second)
	if large.Quantile(1) > 100*time.Hour || large.Count() != 2 {
		t.Error(large.Quantile(1))
	}
	if err := json.Unmarshal([]byte(`{"counts":[[99999,1]]}`), &back); err == nil {
		t.Error("a bucket that does not exist was taken")
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.Error(w, "over capacity", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if err := load.Get(server.Client(), server.URL)(t.Context()); err != nil {
		t.Error(err)
	}
	if err := load.Get(server.Client(), server.URL+"/full")(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
}

func FuzzControl(f *testing.F) {
	f.Add("calm 100\nburst 300\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := load.New(load.Config{Call: func(context.Context) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		g.Control(strings.NewReader(text))
		for _, p := range g.Report().Phases {
			if !(p.Rate >= 0 && p.Rate <= load.MaxRate) {
				t.Errorf("rate %v", p.Rate)
			}
		}
	})
}

func BenchmarkHistogramAdd(b *testing.B) {
	b.ReportAllocs()
	var h load.Histogram
	for i := 0; b.Loop(); i++ {
		h.Add(time.Duration(i) * time.Microsecond)
	}
}

// Offer load that triples, and read the figures of each phase.
func Example() {
	g, err := load.New(load.Config{Even: true, Call: func(context.Context) error { return nil }})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	if err := g.SetPhase(load.Phase{Name: "calm", Rate: 1000}); err != nil {
		fmt.Println(err)
		return
	}
	go func() { ended <- g.Run(ctx) }()
	for g.Report().Phase("calm").OK < 10 {
	}
	cancel()
	fmt.Println("ended:", <-ended)
	calm := g.Report().Phase("calm")
	fmt.Println("failed:", calm.Failed, "all answered:", calm.OK == calm.Sent)
	// Output:
	// ended: <nil>
	// failed: 0 all answered: true
}
