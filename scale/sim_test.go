package scale_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	seeded "github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// sim plays a module through Decide, second by second, with faults from a seed: buckets that are lost, recorders
// that stop, devices that die, orders that fail. It keeps its own books, and checks decisions against them.
type sim struct {
	rng    *rand.Rand
	bug    string
	now    time.Time
	m      scale.Module
	h      scale.History // as the recorder kept it
	rate   float64       // of load, drifting and bursting
	goal   float64
	orders []simOrder
	lost   bool // the recorder marks buckets invalid
	silent bool // the recorder writes nothing
	names  int
	outs   int
	ins    int
}

type simOrder struct {
	out     bool
	devices []scale.Device
	ends    time.Time
	fails   bool
}

func newSim(seed uint64, bug string) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 2)), bug: bug, now: time.Unix(1e9, 0).UTC(), rate: 200, goal: 200}
	s.m = scale.Module{
		Name: "m", Min: 2, Max: 30, Capacity: map[string]float64{"s": 100},
		Policy: scale.Policy{
			ReactWithin: 6 * time.Second, StaleAfter: 10 * time.Second, Target: 0.7, Window: 20 * time.Second, Lead: 10 * time.Second,
			InAfter: 40 * time.Second, Cooldown: 5 * time.Second, CooldownIn: 10 * time.Second, Backoff: 5 * time.Second, PerHour: 1000,
			NoForecast: seed%2 == 0,
		},
	}
	for range 4 {
		s.m.Serving = append(s.m.Serving, s.device())
	}
	return s
}

func (s *sim) device() scale.Device {
	s.names++
	return scale.Device{Name: fmt.Sprint("d", s.names), Type: "s", Share: 100, Since: s.now}
}

// run plays the seed, and returns the first breach of an invariant.
func (s *sim) run() error {
	for range 900 {
		s.world()
		d := scale.DecideWith(s.now, s.m, s.h, s.bug)
		if err := s.check(d); err != nil {
			return fmt.Errorf("%v: %+d: %s: %w", s.now.Sub(time.Unix(1e9, 0)), d.Delta, d.Reason, err)
		}
		s.act(d)
	}
	return nil
}

func (s *sim) world() {
	for _, fault := range []*bool{&s.lost, &s.silent} {
		if *fault {
			*fault = s.rng.IntN(15) != 0
		} else {
			*fault = s.rng.IntN(100) == 0
		}
	}
	if s.rng.IntN(60) == 0 {
		s.goal = 50 + 1500*s.rng.Float64()*s.rng.Float64()
	}
	s.rate += (s.goal - s.rate) * 0.3
	seen := s.rate * (0.95 + 0.1*s.rng.Float64())
	switch {
	case s.silent:
	case s.lost:
		s.h = append(s.h, scale.Sample{At: s.now})
	default:
		s.h = append(s.h, scale.Sample{At: s.now, Rate: seen, Valid: true})
	}
	s.now = s.now.Add(time.Second)
	if len(s.h) > 300 {
		s.h = slices.Clone(s.h[len(s.h)-200:])
	}
	if s.rng.IntN(200) == 0 && len(s.m.Serving) > 0 {
		s.m.Serving = slices.Delete(s.m.Serving, 0, 1) // it dies
	}
	s.orders = slices.DeleteFunc(s.orders, func(o simOrder) bool {
		if s.now.Before(o.ends) {
			return false
		}
		s.end(o)
		return true
	})
}

func (s *sim) end(o simOrder) {
	named := func(d scale.Device) bool {
		return slices.ContainsFunc(o.devices, func(x scale.Device) bool { return x.Name == d.Name })
	}
	if o.out {
		s.m.Pending = slices.DeleteFunc(s.m.Pending, named)
	} else {
		s.m.Leaving = slices.DeleteFunc(s.m.Leaving, func(name string) bool { return named(scale.Device{Name: name}) })
	}
	switch {
	case o.fails:
		s.m.Fails++
		s.m.LastFail = s.now
	case o.out:
		s.m.Fails = 0
		s.m.Serving = append(s.m.Serving, o.devices...)
	default:
		s.m.Fails = 0
		s.m.Serving = slices.DeleteFunc(s.m.Serving, named)
	}
}

func (s *sim) act(d scale.Decision) {
	if d.Delta == 0 {
		return
	}
	o := simOrder{out: d.Delta > 0, ends: s.now.Add(time.Duration(5+s.rng.IntN(10)) * time.Second), fails: s.rng.IntN(12) == 0}
	if o.out {
		s.outs++
		s.m.LastOut = s.now
		for range d.Delta {
			o.devices = append(o.devices, s.device())
		}
		s.m.Pending = append(s.m.Pending, o.devices...)
	} else {
		s.ins++
		s.m.LastIn = s.now
		o.devices = scale.Leave(d.Keep, s.m.Min, -d.Delta, s.m.Serving, s.m.Capacity, scale.Prefs{})
		for _, device := range o.devices {
			s.m.Leaving = append(s.m.Leaving, device.Name)
		}
	}
	s.orders = append(s.orders, o)
}

// known are the valid buckets of the last d before the newest, and the age of the newest.
func (s *sim) known(d time.Duration) (rates []float64, age time.Duration) {
	age = math.MaxInt64
	var end time.Time
	for _, sample := range slices.Backward(s.h) {
		if !sample.Valid {
			continue
		}
		if end.IsZero() {
			end = sample.At.Add(time.Second)
			age = s.now.Sub(end)
		}
		if sample.At.Before(end.Add(-d)) {
			break
		}
		rates = append(rates, sample.Rate)
	}
	return rates, age
}

// check holds a decision against the invariants.
func (s *sim) check(d scale.Decision) error {
	if d.Delta == 0 {
		return nil
	}
	have := len(s.m.Serving) - len(s.m.Leaving) + len(s.m.Pending)
	for _, name := range s.m.Leaving { // one that died while it was leaving is not counted twice
		if !slices.ContainsFunc(s.m.Serving, func(d scale.Device) bool { return d.Name == name }) {
			have++
		}
	}
	capacity := float64(have) * 100
	p := s.m.Policy
	recent, age := s.known(p.ReactWithin)
	switch {
	case d.Delta > 0 && have+d.Delta > s.m.Max:
		return fmt.Errorf("%d more than %d is over Max", d.Delta, have)
	case d.Delta > 0 && have < s.m.Min:
		return nil // needs no look at load
	case age > p.StaleAfter:
		return fmt.Errorf("I7: acts on load %v old", age)
	case len(recent)*2 < int(p.ReactWithin.Seconds()):
		return fmt.Errorf("I7: acts on %d known seconds of %v", len(recent), p.ReactWithin)
	case d.Delta > 0:
		if top := slices.Max(recent); p.NoForecast && top <= 0.85*capacity {
			return fmt.Errorf("grows at %g of %g", top, capacity)
		}
		if !s.m.LastOut.IsZero() && s.now.Sub(s.m.LastOut) < p.Cooldown {
			return fmt.Errorf("grows %v after the last order", s.now.Sub(s.m.LastOut))
		}
		return nil
	}
	long, _ := s.known(p.InAfter)
	left := capacity + float64(d.Delta)*100
	switch {
	case have+d.Delta < s.m.Min:
		return fmt.Errorf("%d of %d is below Min", d.Delta, have)
	case len(s.m.Pending)+len(s.m.Leaving) > 0:
		return fmt.Errorf("shrinks with %d coming and %d leaving", len(s.m.Pending), len(s.m.Leaving))
	case float64(len(long)) < 0.9*p.InAfter.Seconds():
		return fmt.Errorf("I7: shrinks on %d known seconds of %v", len(long), p.InAfter)
	case median(long) > 0.7*left:
		return fmt.Errorf("shrinks to %g at a load of %g", left, median(long))
	}
	return nil
}

func median(rates []float64) float64 {
	slices.Sort(rates)
	return rates[len(rates)/2]
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	outs, ins := 0, 0
	seeds := seeded.Seeds(300)
	for seed := range uint64(seeds) {
		s := newSim(seed, "")
		if err := s.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		outs, ins = outs+s.outs, ins+s.ins
	}
	t.Logf("%d seeds: %d orders to grow, %d to shrink", seeds, outs, ins)
	if outs < 3*seeds || ins < seeds {
		t.Errorf("the simulation is idle: %d orders to grow, %d to shrink", outs, ins)
	}
}

// A simulator that cannot fail proves nothing: each planted bug must be found within 100 seeds.
func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"zero-load", "shrink-busy", "forget-pending", "hasty"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				if err := newSim(seed, bug).run(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("100 seeds did not find it")
		})
	}
}
