package balance

import (
	"fmt"
	"slices"
	"time"
)

// weigh computes all weights, within the bound on what may be taken away, and reports whether any changed.
func (g *Group) weigh() bool {
	var total float64
	for _, m := range g.order {
		total += max(m.Weight, 0)
	}
	before := make([]float64, len(g.order))
	panicked := g.panic
	for i, m := range g.order {
		before[i] = m.weight
	}
	budget := g.config.MaxEjected*total + 1e-9
	budget, kept := g.exclude(budget)
	g.slowDown(budget)
	g.panic = ""
	var usable float64
	for _, m := range g.order {
		usable += m.weight
	}
	switch {
	case usable == 0 && total > 0:
		g.panic = "every instance is down: all of them are in use"
		for _, m := range g.order {
			m.weight, m.kept = max(m.Weight, 0), m.health == Ejected || m.health == Probing
		}
	case kept > 0 && g.plantedBug != "panic is silent":
		g.panic = fmt.Sprintf("%d instances are down but stay in use: more than %.0f %% of the weight would be ejected", kept, 100*g.config.MaxEjected)
	}
	for i, m := range g.order {
		if before[i] != m.weight {
			return true
		}
	}
	return panicked != g.panic
}

// exclude takes the weight of those that are down, the first to go down first, and returns what is left of the budget
// and how many are kept for want of it.
func (g *Group) exclude(budget float64) (left float64, kept int) {
	var down []*member
	for _, m := range g.order {
		m.kept = false
		m.weight = max(m.Weight, 0)
		switch {
		case m.health == Trial:
			m.weight *= g.config.TrialShare
		case m.health == Up || m.weight == 0:
		case m.Suspect && g.plantedBug != "agreement is ignored":
			m.weight = 0 // this caller and the registry agree: the bound is against one opinion alone
		default:
			down = append(down, m)
		}
	}
	slices.SortStableFunc(down, func(a, b *member) int { return a.downSince().Compare(b.downSince()) })
	for _, m := range down {
		if m.weight <= budget || g.plantedBug == "ejection is not bounded" {
			budget -= m.weight
			m.weight = 0
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
		if m.slow < 1 && m.weight > 0 && m.health == Up {
			slow = append(slow, m)
		}
	}
	slices.SortStableFunc(slow, func(a, b *member) int {
		switch {
		case a.slow < b.slow:
			return -1
		case a.slow > b.slow:
			return 1
		}
		return 0
	})
	for _, m := range slow {
		if loss := m.weight * (1 - m.slow); loss <= budget {
			budget -= loss
			m.weight *= m.slow
		}
	}
}

// Status is one instance as the group sees it.
type Status struct {
	Addr    string
	Key     uint64  // Hash of Addr, for a Candidate
	Weight  float64 // in force
	Share   float64 // of all weights in force: of the draws
	Health  Health
	Since   time.Time     // of the state of health
	Until   time.Time     // when an ejection's time is over
	Slow    float64       // factor for latency, 1 for none
	Latency time.Duration // estimate, 0 for none
	Kept    bool          // down, but in use
	Reason  string
}

// Statuses returns all instances by address.
func (g *Group) Statuses() []Status {
	var total float64
	for _, m := range g.order {
		total += m.weight
	}
	out := make([]Status, len(g.order))
	for i, m := range g.order {
		out[i] = Status{
			Addr: m.Addr, Key: m.key, Weight: m.weight, Health: m.health, Since: m.since, Slow: m.slow,
			Latency: time.Duration(m.latency), Kept: m.kept, Reason: m.explain(),
		}
		if total > 0 {
			out[i].Share = m.weight / total
		}
		if m.health == Ejected {
			out[i].Until = m.until
		}
	}
	return out
}

func (m *member) explain() string {
	switch {
	case m.Weight <= 0:
		return "weight 0: takes no calls"
	case m.kept:
		return m.health.String() + ", but in use: " + m.reason
	case m.health != Up:
		return m.health.String() + ": " + m.reason
	case m.weight < m.Weight:
		return fmt.Sprintf("up, at %.1f %% of its weight: slower than its peers", 100*m.weight/m.Weight)
	case m.slow < 1:
		return "up: slower than its peers, but the bound on what may be taken away is reached"
	}
	return "up"
}

// Weights returns the addresses and the weights in force, by address.
func (g *Group) Weights() (addrs []string, weights []float64) {
	addrs, weights = make([]string, len(g.order)), make([]float64, len(g.order))
	for i, m := range g.order {
		addrs[i], weights[i] = m.Addr, m.weight
	}
	return addrs, weights
}

// Panic says why instances that are down are in use; empty if none is.
func (g *Group) Panic() string { return g.panic }
