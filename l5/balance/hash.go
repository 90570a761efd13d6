package balance

import (
	"math"
	"math/bits"
)

// Hash returns the hash of a key: of an address, or of what names a call's user or object. It is the same in
// all processes and versions (FNV-1a with a final mix), so that callers agree.
func Hash(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return finish(h)
}

// finish spreads the entropy of h over all of its bits (the final mix of MurmurHash3).
func finish(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// loadFactor bounds the load of an instance under the hash policies, in means.
const loadFactor = 1.25

// initOwners lays out who owns which hash.
func (p *Picker) initOwners(candidates []Candidate) {
	p.loads = make([]*Load, len(p.columns))
	for i := range p.columns {
		p.loads[i] = p.columns[i].loads[0]
	}
	switch n := len(p.columns); {
	case p.policy == Maglev && n <= maxMaglev:
		p.owners = newMaglev(candidates, p.columns)
	case n >= ringSearch && n <= ringTable:
		p.owners = newSlots(candidates, p.columns)
	default:
		p.ring = newRing(candidates, p.columns)
	}
}

// owner returns the candidate that owns hash, or the next in the order of the hash whose load, with this call, is
// within the bound.
func (p *Picker) owner(random, hash uint64) (int, *Load) {
	at := p.owned(hash)
	load := p.loads[at]
	if calls, _ := load.weigh(); calls >= 1 { // one call is always within the bound
		c := p.bounded(&p.columns[at], random, hash)
		return int(c.index), c.loads[0]
	}
	if p.sparse {
		at = p.columns[at].index
	}
	return int(at), load
}

func (p *Picker) owned(hash uint64) uint32 {
	if p.ring != nil {
		return p.ring.owner(hash)
	}
	slot, _ := bits.Mul64(hash, uint64(len(p.owners)))
	return uint32(p.owners[slot])
}

// bounded looks for a candidate within the bound, which the mean of all loads sets. The mean is taken anew at each pick of a
// small service and at one in n of a large one: it is off by no more than a few calls.
func (p *Picker) bounded(first *column, random, hash uint64) *column {
	n := len(p.columns)
	mean := math.Float64frombits(p.mean.Load())
	if n <= scanAll || mean == 0 || random>>32*uint64(n)>>32 == 0 {
		mean = p.meanLoad()
		p.mean.Store(math.Float64bits(mean))
	}
	c := first
	for try := uint64(1); ; try++ {
		calls, _ := c.loads[0].weigh()
		// The price has 24 digits: a bound that is a whole number must not become the next one.
		if within := math.Ceil(loadFactor*mean/float64(c.price) - 1e-4); float64(calls) < max(1, within) {
			return c
		}
		if try > 64 {
			return p.least(random) // the mean is old, or weights are extreme: somebody has room
		}
		// The hash of a try is a function of the call's hash alone: calls that overflow keep together, too.
		c = &p.columns[p.owned(finish(hash+try*0x9e3779b97f4a7c15))]
	}
}

// meanLoad is the calls in flight, with the one to come, for weight 1.
func (p *Picker) meanLoad() float64 {
	sum, weight := 1.0, 0.0
	for i := range p.columns {
		c := &p.columns[i]
		calls, _ := c.loads[0].weigh()
		sum += float64(calls)
		weight += 1 / float64(c.price)
	}
	return sum / weight
}
