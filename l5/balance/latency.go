package balance

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// observe moves the latency estimate towards a window's mean: the more calls, the further. An instance that gets
// little because it is slow believes its few calls more, so that it is heard when it heals.
func (m *member) observe(now time.Time, s Sample) {
	if s.Successes <= 0 || s.LatencySum <= 0 {
		return
	}
	m.heard = now
	mean := float64(s.LatencySum) / float64(s.Successes)
	if m.latency == 0 {
		m.latency = mean
		return
	}
	inertia := 8.0
	if m.slow < 1 {
		inertia = 1
	}
	gain := float64(s.Successes) / (float64(s.Successes) + inertia)
	m.latency += gain * (mean - m.latency)
}

// staleAfter is how long the estimate of an instance that is slow counts without a call to confirm it.
const staleAfter = 5 * time.Second

// age halves estimates that nothing confirms: a caller of few calls must not shun an instance for ever.
func (g *Group) age(now time.Time) {
	for _, m := range g.order {
		if m.slow < 1 && now.Sub(m.heard) >= staleAfter {
			m.latency /= 2
			m.heard = now
		}
	}
}

// leastSlow is what the slowest instance keeps of its weight: enough to hear when it heals.
const leastSlow = 0.005

// compare sets each instance's slow factor from its latency against the faster quarter of its peers, by weight: the
// square of how far it is beyond the allowed ratio, so that 20 times slower means less than one per cent.
func (g *Group) compare() {
	reference := g.reference()
	for _, m := range g.order {
		m.slow = 1
		if reference == 0 || m.latency == 0 || m.latency-reference < float64(g.config.SlowMargin) {
			continue
		}
		if excess := m.latency / reference / g.config.SlowRatio; excess > 1 {
			m.slow = max(leastSlow, math.Round(200/(excess*excess))/200) // in steps: a new table is not for free
		}
	}
}

// reference is the latency below which the faster quarter of the weight lies; 0 with fewer than two to compare.
func (g *Group) reference() float64 {
	var known []*member
	var total float64
	for _, m := range g.order {
		if m.latency > 0 && m.Weight > 0 && m.health == Up {
			known = append(known, m)
			total += m.Weight
		}
	}
	if len(known) < 2 {
		return 0
	}
	slices.SortFunc(known, func(a, b *member) int { return cmp.Compare(a.latency, b.latency) })
	var sum float64
	for _, m := range known {
		if sum += m.Weight; sum >= total/4 {
			return m.latency
		}
	}
	return known[len(known)-1].latency
}
