package balance

const (
	// fewChoices is up to how many candidates Adaptive looks at all of them when the first draw is busy.
	fewChoices = 8
	// moreDraws is how many it looks at in a larger service, or if the first draw is idle but slow.
	moreDraws = 5
	// goodRatio is how much slower than its faster peers an idle candidate may be to be taken without another look.
	goodRatio = 1.1
	// alike is what makes no difference: where all are as good, a thousandth must not send all calls to one.
	alike = 1.05
)

// adaptive takes the first draw if it is idle and as fast as its faster peers: then no other can be better. If it is slower it
// draws on until one is; each draw is by weight, so that shares stay what weights say among those that are alike. Otherwise
// it takes the cheapest of what it saw, which in a small service is all.
func (p *Picker) adaptive(random uint64) (int, *Load) {
	// This is draw without its branches: no processor can guess a coin. It reads one column and one Load.
	product := uint64(uint32(random)) * uint64(len(p.columns))
	at := uint32(product >> 32)
	if int(at) >= len(p.columns) {
		return -1, nil // there are none
	}
	c := &p.columns[at]
	coin := (uint64(c.keep) - uint64(uint32(product)) - 1) >> 63 // 1: the other
	load := c.loads[coin]
	at ^= (at ^ c.other) & -uint32(coin)
	if load.word.Load() > p.good.Load() {
		c = p.cheapest(&p.columns[at], random)
		return int(c.index), c.loads[0]
	}
	if random>>56 == 0 {
		p.learnGood(random)
	}
	if p.sparse {
		at = p.columns[at].index
	}
	return int(at), load
}

// cheapest looks for one that is cheaper than a.
func (p *Picker) cheapest(a *column, random uint64) *column {
	calls, latency := a.loads[0].weigh()
	good := wordLatency(p.good.Load())
	best := choice{a, calls, latency}
	random = mix(random)
	if random>>61 == 0 {
		p.learnGood(random)
	}
	if calls > 0 && len(p.columns) <= fewChoices {
		n := len(p.columns)
		at := int(random >> 32 * uint64(n) >> 32) // of equals the first wins: it must not always be the same
		for range n {
			best.consider(&p.columns[at])
			if at++; at == n {
				at = 0
			}
		}
		return best.column
	}
	for range moreDraws {
		random = mix(random)
		c := p.draw(uint32(random >> 32))
		if calls, latency := best.consider(c); calls <= 0 && latency <= good {
			return c
		}
	}
	return best.column
}

// learnGood sets the latency that is good from the faster quarter of a few draws: an order statistic of a sample, so that no
// pick needs to look at all.
func (p *Picker) learnGood(random uint64) {
	fastest := [2]float32{} // of eight draws the second fastest
	for range 8 {
		random = mix(random)
		_, latency := p.draw(uint32(random >> 32)).loads[0].weigh()
		switch {
		case latency == 0:
		case fastest[0] == 0 || latency < fastest[0]:
			fastest[0], fastest[1] = latency, fastest[0]
		case fastest[1] == 0 || latency < fastest[1]:
			fastest[1] = latency
		}
	}
	good := max(fastest[0], fastest[1]) * goodRatio
	if old := wordLatency(p.good.Load()); good < 0.9*old || good > 1.1*old { // other processors read this line
		p.good.Store(latencyBitsOf(good))
	}
}

// choice is the cheapest candidate so far.
type choice struct {
	*column
	calls, latency float32
}

// consider takes c if it is cheaper: if its calls in flight with half of this one, times its latency, for its weight, are
// fewer. With a whole call an idle instance of a tenth of the weight would have to wait for ten calls elsewhere, with none
// it would always be the better choice. It returns what it saw.
func (b *choice) consider(c *column) (calls, latency float32) {
	calls, latency = c.loads[0].weigh()
	if c == b.column {
		return calls, latency
	}
	ours, theirs := b.latency, latency
	if ours == 0 || theirs == 0 {
		ours, theirs = 1, 1 // nothing is known of one of them: calls alone decide
	}
	if (calls+0.5)*c.price*theirs*alike < (b.calls+0.5)*b.price*ours {
		*b = choice{c, calls, latency}
	}
	return calls, latency
}
