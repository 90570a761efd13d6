package scale_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/scale"
)

func TestPlace(t *testing.T) {
	t.Parallel()
	capacity := map[string]float64{"s": 100, "l": 300}
	prefs := scale.Prefs{Cities: []string{"sz"}, Sites: []string{"sz1"}, Types: []string{"s", "l"}}
	c := func(name, city, site, kind string) scale.Candidate {
		return scale.Candidate{Name: name, City: city, Site: site, Type: kind}
	}
	idle := []scale.Candidate{
		c("far1", "sh", "sh1", "l"), c("far2", "sh", "sh1", "s"), c("b1", "sz", "sz2", "s"), c("b2", "sz", "sz2", "l"),
		c("a2", "sz", "sz1", "s"), c("a1", "sz", "sz1", "s"), c("a3", "sz", "sz1", "l"), c("x", "sz", "sz1", "gpu"),
	}
	for name, test := range map[string]struct {
		want  float64
		limit int
		names []string
		short float64
	}{
		"one type at home":              {150, 0, []string{"a1", "a2"}, 0},
		"types are mixed":               {400, 0, []string{"a1", "a3"}, 0},
		"then the next site":            {700, 0, []string{"a1", "a3", "b2"}, 0},
		"then another city":             {950, 0, []string{"a1", "a2", "a3", "b1", "b2", "far2"}, 0},
		"all, and still short":          {2000, 0, []string{"a1", "a2", "a3", "b1", "b2", "far2", "far1"}, 700},
		"the best of them":              {2000, 2, []string{"a1", "a2"}, 1800},
		"nothing for nothing":           {0, 0, nil, 0},
		"as many as the limit, by hand": {math.Inf(1), 3, []string{"a1", "a2", "a3"}, math.Inf(1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := scale.Place(test.want, idle, capacity, prefs, test.limit)
			var names []string
			for _, picked := range p.Picked {
				names = append(names, picked.Name)
			}
			if diff := gocmp.Diff(test.names, names); diff != "" || p.Short != test.short {
				t.Errorf("short %g, want %g; picked (-want +got):\n%s", p.Short, test.short, diff)
			}
		})
	}
}

// cost is what Place promises to minimise: first what is short, then the devices of each tier, the worst first.
func cost(want float64, picked []scale.Candidate, capacity map[string]float64, tiers []string, tier func(scale.Candidate) string) []float64 {
	have := 0.0
	count := make([]float64, len(tiers))
	for _, c := range picked {
		have += capacity[c.Type]
		count[slices.Index(tiers, tier(c))]++
	}
	return append([]float64{max(0, want-have)}, count...)
}

func TestPlaceIsOptimal(t *testing.T) {
	t.Parallel()
	cities, sites, kinds := []string{"sz", "sh"}, []string{"1", "2"}, []string{"s", "m", "l"}
	capacity := map[string]float64{"s": 100, "m": 150, "l": 300}
	prefs := scale.Prefs{Cities: cities[:1], Sites: sites[:1], Types: kinds}
	tier := func(c scale.Candidate) string {
		return fmt.Sprintf("%d%d%d", slices.Index(cities, c.City), slices.Index(sites, c.Site), slices.Index(kinds, c.Type))
	}
	var tiers []string // worst first
	for city := range 2 {
		for site := range 2 {
			for kind := range 3 {
				tiers = append(tiers, fmt.Sprintf("%d%d%d", city, site, kind))
			}
		}
	}
	slices.Reverse(tiers)
	rapid.Check(t, func(rt *rapid.T) {
		var idle []scale.Candidate
		for i := range rapid.IntRange(0, 10).Draw(rt, "candidates") {
			idle = append(idle, scale.Candidate{
				Name: fmt.Sprint(i),
				City: rapid.SampledFrom(cities).Draw(rt, "city"),
				Site: rapid.SampledFrom(sites).Draw(rt, "site"),
				Type: rapid.SampledFrom(kinds).Draw(rt, "type"),
			})
		}
		want := float64(rapid.IntRange(0, 40).Draw(rt, "want")) * 50
		got := scale.Place(want, idle, capacity, prefs, 0)
		have := cost(want, got.Picked, capacity, tiers, tier)
		for set := range 1 << len(idle) {
			var picked []scale.Candidate
			for i := range idle {
				if set>>i&1 == 1 {
					picked = append(picked, idle[i])
				}
			}
			if other := cost(want, picked, capacity, tiers, tier); slices.Compare(other, have) < 0 {
				rt.Fatalf("for %g Place picked %v at %v; %v costs %v", want, got.Picked, have, picked, other)
			}
		}
	})
}

func TestLeave(t *testing.T) {
	t.Parallel()
	capacity := map[string]float64{"s": 100, "l": 300}
	prefs := scale.Prefs{Cities: []string{"sz"}, Sites: []string{"sz1"}, Types: []string{"s", "l"}}
	day := time.Unix(1e9, 0)
	serving := []scale.Device{
		{Name: "old", City: "sz", Site: "sz1", Type: "s", Since: day},
		{Name: "new", City: "sz", Site: "sz1", Type: "s", Since: day.Add(time.Hour)},
		{Name: "site", City: "sz", Site: "sz2", Type: "s", Since: day},
		{Name: "far", City: "sh", Site: "sh1", Type: "l", Since: day},
	}
	for name, test := range map[string]struct {
		keep         float64
		least, limit int
		names        []string
	}{
		"the farthest first":                  {0, 1, 2, []string{"far", "site"}},
		"then the newest":                     {0, 1, 4, []string{"far", "site", "new"}},
		"what is needed stays":                {350, 1, 4, []string{"site", "new"}},
		"none falls below what is needed":     {600, 0, 4, nil},
		"nor below the least number":          {0, 3, 4, []string{"far"}},
		"of the large and small only a small": {450, 0, 1, []string{"site"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for _, d := range scale.Leave(test.keep, test.least, test.limit, serving, capacity, prefs) {
				names = append(names, d.Name)
			}
			if diff := gocmp.Diff(test.names, names); diff != "" {
				t.Errorf("leaving (-want +got):\n%s", diff)
			}
		})
	}
}

func BenchmarkPlace(b *testing.B) {
	b.ReportAllocs()
	idle := make([]scale.Candidate, 10_000)
	for i := range idle {
		idle[i] = scale.Candidate{Name: fmt.Sprintf("d%05d", i*7919%10_000), City: fmt.Sprint("c", i%5), Site: fmt.Sprint("s", i%40), Type: string("sml"[i%3])}
	}
	capacity := map[string]float64{"s": 100, "m": 150, "l": 300}
	prefs := scale.Prefs{Cities: []string{"c3"}, Sites: []string{"s3"}, Types: []string{"m", "s", "l"}}
	for b.Loop() {
		scale.Place(250_000, idle, capacity, prefs, 0)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, test := range []struct {
		name   string
		length time.Duration
	}{{"15min", 15 * time.Minute}, {"2h", 2 * time.Hour}, {"30d", 30 * 24 * time.Hour}} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Unix(1e9, 0)
			var h scale.History
			for at := now.Add(-test.length); at.Before(now); at = at.Add(10 * time.Second) {
				h = append(h, scale.Sample{At: at, Rate: 500 + 100*math.Sin(float64(at.Unix())/3000), Valid: true})
			}
			m := scale.Module{Name: "m", Capacity: map[string]float64{"s": 100}, Serving: make([]scale.Device, 9)}
			for i := range m.Serving {
				m.Serving[i] = scale.Device{Name: fmt.Sprint(i), Type: "s", Share: 100}
			}
			for b.Loop() {
				if d := scale.Decide(now, m, h); d.Reason.Code == scale.CodeDataMissing {
					b.Fatal(cmp.Or(d.Reason.String(), "none"))
				}
			}
		})
	}
}
