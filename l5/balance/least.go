package balance

import (
	"math"
	"slices"
)

// mix makes the next random number from one.
func mix(random uint64) uint64 {
	random = (random ^ random>>32) * 0x9e3779b97f4a7c15
	return random ^ random>>29
}

// scanAll is up to how many candidates LeastRequest looks at all of them; beyond, it looks at leastDraws.
const (
	scanAll    = 16
	leastDraws = 8
)

// least returns the one with the fewest calls in flight for its weight. Among equals the first drawn wins.
func (p *Picker) least(random uint64) *column {
	best := p.draw(uint32(random))
	calls, _ := best.loads[0].weigh()
	least := calls * best.price
	if least <= 0 {
		return best
	}
	consider := func(c *column) {
		calls, _ := c.loads[0].weigh()
		if price := (calls + 0.5) * c.price; c != best && price < least {
			best, least = c, calls*c.price
		}
	}
	if n := len(p.columns); n <= scanAll {
		at := int(random >> 32 * uint64(n) >> 32)
		for i := range n {
			consider(&p.columns[(at+i)%n])
		}
		return best
	}
	for range leastDraws - 1 {
		random = mix(random)
		consider(p.draw(uint32(random >> 32)))
	}
	return best
}

// hotQuantile is the share of draws that are cold, 2^-0.25.
const (
	hotQuantile = 0.84
	coldDraws   = 4
)

// initHot sets the threshold from the loads as they are.
func (p *Picker) initHot() {
	loads := make([]float32, len(p.columns))
	for i := range p.columns {
		loads[i] = p.columns[i].burden()
	}
	slices.Sort(loads)
	p.hot.Store(math.Float32bits(loads[int(hotQuantile*float64(len(loads)-1))]))
}

// burden is the calls in flight for the weight.
func (c *column) burden() float32 {
	calls, _ := c.loads[0].weigh()
	return calls * c.price
}

// cold makes a choice by the hot-cold rule.
func (p *Picker) cold(random uint64) *column {
	threshold := math.Float32frombits(p.hot.Load())
	best := p.draw(uint32(random))
	p.learnHot(threshold, best)
	calls, latency := best.loads[0].weigh()
	least, wait := calls*best.price, latency*(calls+1)
	hot := least > threshold
	for range coldDraws - 1 {
		random = mix(random)
		c := p.draw(uint32(random >> 32))
		if c == best {
			continue
		}
		calls, latency := c.loads[0].weigh()
		burden, w := calls*c.price, latency*(calls+1)
		switch {
		case burden > threshold: // hot: only of use if all are, and then the least burdened
			if !hot || burden >= least {
				continue
			}
		case !hot && w >= wait: // cold, but with this call it would not be the faster one
			continue
		}
		best, least, wait, hot = c, burden, w, burden > threshold
	}
	return best
}

// learnHot moves the threshold towards the quantile of what is drawn, a step per draw: a stochastic approximation
// (Robbins and Monro, 1951), so that no pick needs to look at all.
func (p *Picker) learnHot(threshold float32, drawn *column) {
	step := drawn.price / 16
	switch burden := drawn.burden(); {
	case burden > threshold:
		p.hot.Store(math.Float32bits(threshold + step*hotQuantile))
	case threshold > 0:
		p.hot.Store(math.Float32bits(max(0, threshold-step*(1-hotQuantile))))
	}
}
