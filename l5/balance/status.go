package balance

import (
	"fmt"
	"strings"
	"time"
)

// Status is one instance as the group sees it.
type Status struct {
	Addr    string
	Key     uint64  // Hash of Addr, for a Candidate
	Weight  float64 // in force: the product of Factors
	Factors Factors
	Share   float64 // of all weights in force: of the draws
	Health  Health
	Since   time.Time     // of the state of health
	Until   time.Time     // when an ejection's time is over
	Slow    float64       // what its latency would leave it of its weight; 1: all
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
			Addr: m.Addr, Key: m.key, Weight: m.weight, Factors: m.factors, Health: m.health, Since: m.since, Slow: m.slow,
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

// explain says in words why m has its weight.
func (m *member) explain() string {
	switch {
	case m.base() <= 0:
		return "weight 0: takes no calls"
	case m.kept:
		return m.health.String() + ", but in use: " + m.reason
	case m.health != Up:
		return m.health.String() + ": " + m.reason
	}
	f := m.factors
	if f.Latency == 1 && f.Start == 1 && f.Capacity == 1 && !m.shielded {
		return "up"
	}
	var why []string
	if f.Latency < 1 {
		why = append(why, fmt.Sprintf("at %.1f %% of its weight: slower than its peers", 100*f.Latency))
	}
	if m.shielded {
		why = append(why, "slower than its peers, but the bound on what may be taken away is reached")
	}
	if f.Start < 1 {
		why = append(why, fmt.Sprintf("at %.0f %% in its slow start", 100*f.Start))
	}
	if f.Capacity != 1 {
		why = append(why, fmt.Sprintf("at %.0f %% by the capacity that it reports", 100*f.Capacity))
	}
	return "up, " + strings.Join(why, ", ")
}

// Panic says why instances that are down are in use; empty if none is.
func (g *Group) Panic() string { return g.panic }
