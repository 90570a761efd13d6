package balance

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Factors are what the weight of an instance is the product of.
type Factors struct {
	Static   float64 // the weight that it is registered with
	Gray     float64 // 0..1: what a rollout lets it have
	Capacity float64 // what it reported that it can carry, 1 for all
	Start    float64 // 0..1: less than 1 while it starts slowly
	Latency  float64 // 0..1: less than 1 for one slower than its peers
	Health   float64 // 1 up, or down but kept in use; Config.TrialShare on trial; 0 down
}

// Weight is the product.
func (f Factors) Weight() float64 {
	return f.Static * f.Gray * f.Capacity * f.Start * f.Latency * f.Health
}

// base is the weight that the name service gives.
func (m *member) base() float64 { return max(m.Weight, 0) * min(max(m.Gray, 0), 1) }

// start is how far a slow start is.
func (g *Group) start(now time.Time, m *member) float64 {
	if m.started.IsZero() {
		return 1
	}
	done := float64(now.Sub(m.started)) / float64(g.config.SlowStart)
	if g.config.SlowStart <= 0 || done >= 1 {
		m.started = time.Time{}
		return 1
	}
	return math.Ceil(10*(g.config.TrialShare+(1-g.config.TrialShare)*max(done, 0))) / 10 // in steps: a new table is not for free
}

// weigh computes all weights, within the bound on what may be taken away, and reports whether any changed.
func (g *Group) weigh(now time.Time) bool {
	var total float64
	for _, m := range g.order {
		total += m.base()
		m.kept, m.shielded = false, false
		m.factors = Factors{
			Static: max(m.Weight, 0), Gray: min(max(m.Gray, 0), 1), Capacity: m.capacity, Start: g.start(now, m), Latency: 1, Health: 1,
		}
		if m.health == Trial {
			m.factors.Health = g.config.TrialShare
		}
	}
	budget := g.config.MaxEjected*total + 1e-9
	budget, kept := g.exclude(budget)
	if kept > 0 {
		g.hurry()
	}
	g.slowDown(budget)
	panicked := g.panic
	g.panic = ""
	var usable float64
	for _, m := range g.order {
		usable += m.factors.Weight()
	}
	switch {
	case usable == 0 && total > 0:
		g.panic = "every instance is down: all of them are in use"
		for _, m := range g.order {
			m.factors.Health, m.kept = 1, m.health.down()
		}
	case kept > 0 && g.plantedBug != "panic is silent":
		g.panic = fmt.Sprintf("%d instances are down but stay in use: more than %.0f %% of the weight would be ejected", kept, 100*g.config.MaxEjected)
	}
	changed := panicked != g.panic
	for _, m := range g.order {
		weight := m.factors.Weight()
		changed = changed || weight != m.weight
		m.weight = weight
	}
	return changed
}

// hurry ends slow starts: an instance that may be cold is better than one that is down.
func (g *Group) hurry() {
	for _, m := range g.order {
		m.started, m.factors.Start = time.Time{}, 1
	}
}

// exclude takes the weight of those that are down, the first to go down first, and returns what is left of the budget
// and how many are kept for want of it.
func (g *Group) exclude(budget float64) (left float64, kept int) {
	var down []*member
	for _, m := range g.order {
		switch {
		case !m.health.down() || m.base() == 0:
		case m.Suspect && g.plantedBug != "agreement is ignored":
			m.factors.Health = 0 // this caller and the registry agree: the bound is against one opinion alone
		default:
			down = append(down, m)
		}
	}
	slices.SortStableFunc(down, func(a, b *member) int { return a.downSince().Compare(b.downSince()) })
	for _, m := range down {
		if m.base() <= budget || g.plantedBug == "ejection is not bounded" {
			budget -= m.base()
			m.factors.Health = 0
			continue
		}
		m.kept = true
		kept++
	}
	return budget, kept
}

// downSince is when the ejection began that m is in or being probed out of.
func (m *member) downSince() time.Time {
	if m.health == Probing {
		return m.until.Add(-m.lasts)
	}
	return m.since
}

// slowDown takes weight from those slower than their peers, the slowest first, within the budget.
func (g *Group) slowDown(budget float64) {
	var slow []*member
	for _, m := range g.order {
		if m.slow < 1 && m.base() > 0 && m.health == Up {
			slow = append(slow, m)
		}
	}
	slices.SortStableFunc(slow, func(a, b *member) int { return cmp.Compare(a.slow, b.slow) })
	for _, m := range slow {
		loss := m.base() * (1 - m.slow)
		if m.shielded = loss > budget; !m.shielded {
			budget -= loss
			m.factors.Latency = m.slow
		}
	}
}
