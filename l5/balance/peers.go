package balance

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// observe takes what calls did. The latency estimate moves towards the window's mean: the more calls, the further. An instance
// that gets little because it is slow believes its few calls more, so that it is heard when it heals.
func (m *member) observe(now time.Time, s Sample) {
	m.ok += float64(s.Successes)
	m.bad += float64(s.Failures)
	m.watch(now, s)
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
		inertia = 0.5
	}
	gain := float64(s.Successes) / (float64(s.Successes) + inertia)
	m.latency += gain * (mean - m.latency)
}

// watch raises the estimate of an instance whose calls do not end: a call that was in flight when the stall began takes at least
// as long as the stall. What hangs is known long before its calls time out.
func (m *member) watch(now time.Time, s Sample) {
	switch {
	case s.InFlight <= 0:
		m.stalled = time.Time{}
	case s.Successes+s.Failures > 0 || m.stalled.IsZero():
		m.stalled = now
	default:
		if stall := float64(now.Sub(m.stalled)); m.latency > 0 && stall > m.latency {
			m.latency, m.heard = stall, now
		}
	}
}

const (
	// staleAfter is how long the estimate of an instance that is slow counts without a call to confirm it.
	staleAfter = 5 * time.Second
	// recentFor is the half-life of what counts as recent calls.
	recentFor = 5 * time.Second
	// capacityFor is how long a reported capacity counts.
	capacityFor = 15 * time.Second

	leastCapacity, mostCapacity = 0.05, 2
)

// age lets time pass over what was observed. It halves latencies that nothing confirms: a caller of few calls must not
// shun an instance for ever.
func (g *Group) age(now time.Time) {
	decay := 1.0
	if !g.aged.IsZero() && now.After(g.aged) {
		decay = math.Exp2(-float64(now.Sub(g.aged)) / float64(recentFor))
	}
	g.aged = now
	for _, m := range g.order {
		m.ok *= decay
		m.bad *= decay
		if m.capacity != 1 && now.Sub(m.reported) >= capacityFor {
			m.capacity = 1
		}
		if m.slow < 1 && now.Sub(m.heard) >= staleAfter {
			m.latency /= 2
			m.heard = now
		}
	}
}

// report takes a capacity that the instance named, in steps: a new table is not for free.
func (m *member) report(now time.Time, factor float64) {
	if factor != factor {
		return
	}
	m.capacity = math.Round(20*min(max(factor, leastCapacity), mostCapacity)) / 20
	m.reported = now
}

// outliers ejects those that fail far more often than their peers, which a row of failures need not show.
func (g *Group) outliers(now time.Time) (actions []Action) {
	var ok, bad float64
	for _, m := range g.order {
		if m.health == Up {
			ok += m.ok
			bad += m.bad
		}
	}
	for _, m := range g.order {
		volume, others := m.ok+m.bad, ok+bad-m.ok-m.bad
		if m.health != Up || volume < g.config.MinVolume || others < g.config.MinVolume || m.bad < 5 {
			continue
		}
		rate, peers := m.bad/volume, (bad-m.bad)/others
		if rate-peers >= g.config.FailureMargin {
			actions = append(actions, g.eject(now, m, fmt.Sprintf("%.0f %% of its recent calls failed, of its peers' %.0f %%", 100*rate, 100*peers)))
		}
	}
	return actions
}

// leastSlow is what the slowest instance keeps of its weight: enough to hear when it heals.
const leastSlow = 0.005

// compare sets each instance's slow factor from its latency against the faster quarter of its peers, by weight: the
// cube of how far it is beyond the allowed ratio, so that 20 times slower means less than one per cent. It falls at once
// and grows by no more than four times a call, so that one lucky call does not bring all the others back.
func (g *Group) compare() {
	reference := g.reference()
	for _, m := range g.order {
		slow := 1.0
		if excess := m.latency / reference / g.config.SlowRatio; m.latency-reference >= float64(g.config.SlowMargin) && reference > 0 && excess > 1 {
			slow = max(leastSlow, math.Round(200/(excess*excess*excess))/200) // in steps, as above
		}
		m.slow = min(slow, 4*m.slow)
	}
}

// reference is the latency below which the faster quarter of the weight lies; 0 with fewer than two to compare.
func (g *Group) reference() float64 {
	var known []*member
	var total float64
	for _, m := range g.order {
		if m.latency > 0 && m.base() > 0 && m.health == Up {
			known = append(known, m)
			total += m.base()
		}
	}
	if len(known) < 2 {
		return 0
	}
	slices.SortFunc(known, func(a, b *member) int { return cmp.Compare(a.latency, b.latency) })
	var sum float64
	for _, m := range known {
		if sum += m.base(); sum >= total/4 {
			return m.latency
		}
	}
	return known[len(known)-1].latency
}
