package balance

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
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

// owner returns the candidate that owns hash, or the next in the order of the hash whose load, with this call, is
// within the bound.
func (p *Picker) owner(random, hash uint64) *column {
	first := &p.columns[p.owned(hash)]
	if calls, _ := first.loads[0].weigh(); calls < 1 {
		return first // one call is always within the bound
	}
	return p.bounded(first, random, hash)
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

// maxMaglev is how many columns a table holds.
const maxMaglev = math.MaxUint16 - 1

// newMaglev fills the table: the columns take turns, each taking the next free slot of its own permutation; one of less weight
// sits out turns.
func newMaglev(candidates []Candidate, columns []column) []uint16 {
	size := maglevSize(len(columns))
	type builder struct {
		column     uint16
		key        uint64
		at, skip   uint64
		gain, have float64
	}
	builders := make([]builder, len(columns))
	var most float64
	for _, c := range columns {
		most = max(most, candidates[c.index].Weight)
	}
	for i, c := range columns {
		candidate := candidates[c.index]
		builders[i] = builder{
			column: uint16(i), key: candidate.Key, at: finish(candidate.Key^1) % size, skip: finish(candidate.Key^2)%(size-1) + 1,
			gain: candidate.Weight / most,
		}
	}
	// By key: the table must not depend on the order of the candidates.
	slices.SortFunc(builders, func(a, b builder) int { return cmp.Compare(a.key, b.key) })
	const free = math.MaxUint16
	owners := make([]uint16, size)
	for i := range owners {
		owners[i] = free
	}
	for filled := uint64(0); ; {
		for i := range builders {
			b := &builders[i]
			if b.have += b.gain; b.have < 1 {
				continue
			}
			b.have--
			for owners[b.at] != free {
				if b.at += b.skip; b.at >= size {
					b.at -= size
				}
			}
			owners[b.at] = b.column
			if filled++; filled == size {
				return owners
			}
		}
	}
}

// maglevSize is a prime of about a thousand times n, up to a million. A change of one in a hundred then moves 1.4 hashes
// of a hundred, where the least possible is 1; at a hundred times n it would move 2.4.
func maglevSize(n int) uint64 {
	for _, prime := range [...]uint64{16411, 131101, 524309} {
		if prime >= uint64(n)*1000 {
			return prime
		}
	}
	return 1048583
}

// ringPoints is what the heaviest candidate has, or up to half of it: ownership is even within about a tenth.
const ringPoints = 128

// ring is a consistent hash ring, with an index by the leading bits so that finding a point is no search.
type ring struct {
	points []uint64 // 40 bits of hash, then 24 of column; in order
	first  []uint32 // by the leading bits of a hash: the first point at or after it
	shift  uint
}

const (
	columnBits = 24
	columnMask = 1<<columnBits - 1
)

// newRing places each column's points in proportion to its weight.
func newRing(candidates []Candidate, columns []column) *ring {
	var most float64
	for _, c := range columns {
		most = max(most, candidates[c.index].Weight)
	}
	// In steps: if the heaviest changed the scale, all points would come or go.
	scale := ringPoints / math.Exp2(math.Ceil(math.Log2(most)))
	r := &ring{}
	for i, c := range columns {
		candidate := candidates[c.index]
		for k := range uint64(max(1, math.Round(scale*candidate.Weight))) {
			r.points = append(r.points, finish(candidate.Key+k*0x9e3779b97f4a7c15)&^columnMask|uint64(i)&columnMask)
		}
	}
	slices.Sort(r.points)
	width := max(1, bits.Len(uint(len(r.points)))-2) // four points for each entry of the index: they share a cache line
	r.shift = uint(64 - width)
	r.first = make([]uint32, 1<<width)
	at := 0
	for i := range r.first {
		for at < len(r.points) && r.points[at] < uint64(i)<<r.shift {
			at++
		}
		r.first[i] = uint32(at)
	}
	return r
}

// owner returns the column of the first point at or after hash.
func (r *ring) owner(hash uint64) uint32 {
	hash &^= columnMask
	at := int(r.first[hash>>r.shift])
	for at < len(r.points) && r.points[at] < hash {
		at++
	}
	if at == len(r.points) {
		at = 0
	}
	return uint32(r.points[at] & columnMask)
}
