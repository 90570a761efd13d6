package rule_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

var here = rule.Place{Device: "d1", Site: "sz-1", City: "sz"}

// fleet has two instances on the caller's device, two more in its site, two more in its city and two elsewhere.
func fleet() []rule.Member {
	return []rule.Member{
		{Addr: "a:1", Place: here}, {Addr: "a:2", Place: here},
		{Addr: "b:1", Place: rule.Place{Device: "d2", Site: "sz-1", City: "sz"}}, {Addr: "b:2", Place: rule.Place{Device: "d3", Site: "sz-1", City: "sz"}},
		{Addr: "c:1", Place: rule.Place{Device: "d4", Site: "sz-2", City: "sz"}}, {Addr: "c:2", Place: rule.Place{Device: "d5", Site: "sz-2", City: "sz"}},
		{Addr: "d:1", Place: rule.Place{Device: "d6", Site: "sh-1", City: "sh"}}, {Addr: "d:2"},
	}
}

// near returns the part of the calls that go to each level.
func near(l rule.Locality, members []rule.Member, loads []rule.Load) (out [4]float64) {
	table := rule.Compile(rule.Rules{}, rule.Caller{Place: here}, rule.Settings{Locality: l})
	layout := table.Layout(table.Plain(), members)
	var total float64
	for _, pick := range layout.Weigh(loads).Picks {
		for k, i := range pick.Indexes {
			out[layout.Level(int(i))] += pick.Weights[k]
			total += pick.Weights[k]
		}
	}
	for i := range out {
		if total > 0 {
			out[i] /= total
		}
	}
	return out
}

func TestLocality(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		locality rule.Locality
		down     []int
		want     string // percent: device, site, city, any
	}{
		{"none preferred", rule.Locality{}, nil, "25 25 25 25"},
		{"any", rule.Locality{Prefer: "any"}, nil, "25 25 25 25"},
		{"device", rule.Locality{Prefer: "device"}, nil, "100 0 0 0"},
		{"half of the device is down", rule.Locality{Prefer: "device"}, []int{0}, "70 30 0 0"},
		{"the device is down", rule.Locality{Prefer: "device"}, []int{0, 1}, "0 100 0 0"},
		{"half of device and site", rule.Locality{Prefer: "device"}, []int{0, 2}, "70 21 9 0"},
		{"site", rule.Locality{Prefer: "site"}, nil, "50 50 0 0"},
		{"a quarter of the site is down", rule.Locality{Prefer: "site"}, []int{0}, "33 67 0 0"},
		{"half of the site is down", rule.Locality{Prefer: "site"}, []int{0, 1}, "0 70 30 0"},
		{"city", rule.Locality{Prefer: "city"}, nil, "33 33 33 0"},
		{"no spare", rule.Locality{Prefer: "site", Spare: 1}, []int{0}, "25 50 25 0"},
		{"the site has most callers", rule.Locality{Prefer: "site", Spare: 1, Demand: map[string]float64{"sz-1": 0.8}}, nil, "31 31 38 0"},
		{"the site has few callers", rule.Locality{Prefer: "site", Spare: 1, Demand: map[string]float64{"sz-1": 0.2}}, []int{0, 1}, "0 100 0 0"},
		{"half of everything is down", rule.Locality{Prefer: "device"}, []int{0, 2, 4, 6}, "70 21 7 2"},
		{"only elsewhere", rule.Locality{Prefer: "site"}, []int{0, 1, 2, 3, 4, 5}, "0 0 0 100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			members := fleet()
			got := near(test.locality, members, loads(len(members), test.down...))
			if text := fmt.Sprintf("%.0f %.0f %.0f %.0f", 100*got[0], 100*got[1], 100*got[2], 100*got[3]); text != test.want {
				t.Errorf("got %s, want %s", text, test.want)
			}
		})
	}
}

// There is no cliff: a little less of one instance's capacity moves little of the calls, whatever the state.
func TestLocalityHasNoCliff(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members := fleet()
		loads := make([]rule.Load, len(members))
		for i := range loads {
			loads[i] = rule.Load{Full: 100, InForce: rapid.Float64Range(1, 100).Draw(t, "in force")}
		}
		l := rule.Locality{Prefer: rapid.SampledFrom([]string{"device", "site", "city"}).Draw(t, "prefer"), Spare: rapid.Float64Range(1, 2).Draw(t, "spare")}
		before := near(l, members, loads)
		i := rapid.IntRange(0, len(loads)-1).Draw(t, "instance")
		loads[i].InForce *= 0.99
		after := near(l, members, loads)
		for level := range before {
			// One instance of the two of its level has lost 1 % of at most half of the level: no share may move further than
			// that times the spare and the four levels it cascades through.
			if moved := math.Abs(after[level] - before[level]); moved > 0.005*2*4 {
				t.Fatalf("level %d went from %.4f to %.4f", level, before[level], after[level])
			}
		}
	})
}

// While there is capacity elsewhere, what is in force at the preferred level is never asked for more than Spare times what
// it would be asked for if all were well.
func TestLocalityKeepsToSpare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members := fleet()
		loads := make([]rule.Load, len(members))
		var near4, inForce float64
		for i := range loads {
			loads[i] = rule.Load{Full: 100, InForce: 100}
			if i < 4 {
				loads[i].InForce = rapid.Float64Range(0, 100).Draw(t, "in force")
				near4 += loads[i].InForce
			}
			inForce += loads[i].InForce
		}
		spare := rapid.Float64Range(1, 2).Draw(t, "spare")
		got := near(rule.Locality{Prefer: "site", Spare: spare}, members, loads)
		share := got[rule.SameDevice] + got[rule.SameSite]
		if want := math.Min(1, spare*near4/400); math.Abs(share-want) > 1e-9 {
			t.Fatalf("%.4f of the calls stay in the site; want %.4f: %.0f of 400 in force", share, want, near4)
		}
	})
}
