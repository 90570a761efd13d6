package balance

import (
	"slices"
	"sync/atomic"
)

// Candidate is one instance that a Picker may choose.
type Candidate struct {
	Weight float64 // 0, less or NaN is never picked; more than 1e18 counts as that
	Load   *Load   // lives on from picker to picker
	Key    uint64  // what the hash policies know it by: Hash of its address
}

// Picker chooses among the candidates of one snapshot of a service. It is built when something changes; picking takes no
// lock, reads no clock and allocates nothing. It is safe for concurrent use.
type Picker struct {
	policy  Policy
	sparse  bool // some candidates have no weight: columns and candidates are numbered apart
	columns []column
	good    atomic.Int64  // Adaptive: the word of an idle Load up to whose latency a candidate is taken
	hot     atomic.Uint32 // HotCold: float32 bits; the load above which a candidate is hot
	turn    atomic.Uint64 // RoundRobin: how many picks were made
	order   []uint32      // RoundRobin: one round, by column; nil: by stride
	strides []uint16      // RoundRobin: what a column gets of each full stride
	loads   []*Load       // hash policies: by column; their picks of idle candidates read nothing else of a column
	owners  []uint16      // hash policies: column by slot; nil: by ring
	ring    *ring
	mean    atomic.Uint64 // hash policies: float64 bits; calls in flight for weight 1
}

// column is a candidate with its part of the alias table: all that a pick reads of it but its Load. It is half a cache line.
type column struct {
	loads [2]*Load // of this candidate, and of the other
	keep  uint32   // of 2^32: below it a draw of this column is this candidate, from it on it is the other
	other uint32   // a column
	index uint32   // into the candidates
	price float32  // of a call in flight here: 1/weight
}

// leastWeight and mostWeight are between what weights count as: prices and sums of weights within are finite.
const (
	leastWeight = 1e-9
	mostWeight  = 1e18
)

// finite returns the candidates with weights of which all sums and quotients are finite; NaN is none.
func finite(candidates []Candidate) []Candidate {
	copied := false
	for i, c := range candidates {
		w := 0.0
		if c.Weight > 0 {
			w = min(max(c.Weight, leastWeight), mostWeight)
		}
		if c.Weight == w || c.Weight < 0 {
			continue
		}
		if !copied {
			candidates, copied = slices.Clone(candidates), true
		}
		candidates[i].Weight = w
	}
	return candidates
}

// NewPicker returns a picker over candidates; pickers hand out indexes into that slice, which it does not keep. turn is where
// RoundRobin starts: Turn of the picker before, so that changes do not start each round anew.
func NewPicker(policy Policy, candidates []Candidate, turn uint64) *Picker {
	candidates = finite(candidates)
	p := &Picker{policy: policy, columns: newColumns(candidates)}
	p.sparse = len(p.columns) < len(candidates)
	if len(p.columns) == 0 {
		return p
	}
	switch policy {
	case Adaptive:
		p.learnGood(turn + 1)
	case RoundRobin:
		p.turn.Store(turn)
		p.order, p.strides = newRound(candidates, p.columns)
	case HotCold:
		p.initHot()
	case Maglev, RingHash:
		p.initOwners(candidates)
	}
	return p
}

// Len returns how many candidates can be picked: those with a weight.
func (p *Picker) Len() int { return len(p.columns) }

// Policy returns how the picker chooses.
func (p *Picker) Policy() Policy { return p.policy }

// Turn returns how many picks RoundRobin has made.
func (p *Picker) Turn() uint64 { return p.turn.Load() }

// Pick returns the index of the candidate for a call and its Load, or -1 and nil if none has a weight. random are 64 uniform
// random bits; hash is that of the call and matters to the hash policies alone. The caller counts the call in with
// Load.Begin.
func (p *Picker) Pick(random, hash uint64) (int, *Load) {
	if p.policy == Adaptive {
		return p.adaptive(random)
	}
	if len(p.columns) == 0 {
		return -1, nil
	}
	var c *column
	switch p.policy {
	case Maglev, RingHash:
		return p.owner(random, hash)
	case HotCold:
		c = p.cold(random)
	case RoundRobin:
		c = p.next()
	case LeastRequest:
		c = p.least(random)
	default:
		c = p.draw(uint32(random))
	}
	return int(c.index), c.loads[0]
}

// draw returns the candidate that 32 uniform random bits choose by weight.
func (p *Picker) draw(random uint32) *column {
	// The high half of the product is a uniform column, the low half what is left of the randomness: the coin.
	product := uint64(random) * uint64(len(p.columns))
	c := &p.columns[product>>32]
	if uint32(product) < c.keep {
		return c
	}
	return &p.columns[c.other]
}
