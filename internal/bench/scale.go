package bench

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// scale measures a decision over two hours of load, and the choice of devices among 10,000.
func (s *suite) scale(context.Context) error {
	s.Progress("scale: deciding and placing")
	now := time.Unix(1e9, 0)
	var history scale.History
	for at := now.Add(-2 * time.Hour); at.Before(now); at = at.Add(10 * time.Second) {
		history = append(history, scale.Sample{At: at, Rate: 500 + 100*math.Sin(float64(at.Unix())/3000), Valid: true})
	}
	module := scale.Module{Name: "m", Capacity: map[string]float64{"s": 100}, Serving: make([]scale.Device, 9)}
	for i := range module.Serving {
		module.Serving[i] = scale.Device{Name: fmt.Sprint(i), Type: "s", Share: 100}
	}
	ours, err := s.each(func(int) error {
		if d := scale.Decide(now, module, history); d.Reason.Code == scale.CodeDataMissing {
			return fmt.Errorf("decided %v", d.Reason)
		}
		return nil
	})
	if err != nil {
		return err
	}
	peak := 0.0
	floor, err := s.each(func(int) error {
		for i := range history {
			peak = max(peak, history[i].Rate)
		}
		return nil
	})
	if err != nil || peak == 0 {
		return fmt.Errorf("no load: %w", err)
	}
	s.add("scale.decide.2h", ours/1e3, "us", floor/1e3, "one pass over the samples")

	idle := make([]scale.Candidate, 10_000)
	for i := range idle {
		idle[i] = scale.Candidate{Name: fmt.Sprintf("d%05d", i*7919%len(idle)), City: fmt.Sprint("c", i%5), Site: fmt.Sprint("s", i%40), Type: string("sml"[i%3])}
	}
	capacity := map[string]float64{"s": 100, "m": 150, "l": 300}
	prefs := scale.Prefs{Cities: []string{"c3"}, Sites: []string{"s3"}, Types: []string{"m", "s", "l"}}
	ours, err = s.each(func(int) error {
		if placed := scale.Place(250_000, idle, capacity, prefs, 0); len(placed.Picked) == 0 {
			return fmt.Errorf("nothing placed: %v", placed.Reason)
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err = s.each(func(int) error {
		sorted := slices.Clone(idle)
		slices.SortFunc(sorted, func(a, b scale.Candidate) int {
			return cmp.Or(cmp.Compare(a.City, b.City), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
		})
		return nil
	})
	s.add("scale.place.10000", ours/1e6, "ms", floor/1e6, "sort the candidates")
	return err
}
