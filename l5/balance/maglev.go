package balance

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

const (
	// maxMaglev is how many columns a table holds.
	maxMaglev = math.MaxUint16 - 1
	// maglevTries is how many slots a column tries in its turn. In the paper it tries until it finds a free one: then all own
	// alike to a slot, but whoever comes or goes displaces others, who displace others. With one try nobody is displaced,
	// and ownership is a matter of chance.
	maglevTries = 4
)

// newMaglev fills the table: the columns take turns, each taking the next free slot of its own random sequence, if it is among
// the next few; one of less weight sits out turns. In the paper the sequence is a permutation, which never comes back to a
// column's own slots: with few tries that would favour the heavy ones.
func newMaglev(candidates []Candidate, columns []column) []uint16 {
	type builder struct {
		column     uint16
		key, state uint64
		gain, have float64
	}
	size := maglevSize(len(columns))
	builders := make([]builder, len(columns))
	scale := weightScale(candidates, columns)
	for i, c := range columns {
		candidate := candidates[c.index]
		state := finish(candidate.Key ^ 1)
		builders[i] = builder{column: uint16(i), key: candidate.Key, state: state, gain: candidate.Weight / scale, have: float64(state>>11) / (1 << 53)}
	}
	// By key: the table must not depend on the order of the candidates.
	slices.SortFunc(builders, func(a, b builder) int { return cmp.Compare(a.key, b.key) })
	const free = math.MaxUint16
	owners := make([]uint16, size)
	for i := range owners {
		owners[i] = free
	}
	for left := size; ; {
		for i := range builders {
			b := &builders[i]
			if b.have += b.gain; b.have < 1 {
				continue
			}
			b.have--
			for range maglevTries {
				b.state += 0x9e3779b97f4a7c15
				at, _ := bits.Mul64(finish(b.state), size)
				if owners[at] != free {
					continue
				}
				owners[at] = b.column
				if left--; left == 0 {
					return owners
				}
				break
			}
		}
	}
}

// maglevSize is a prime: a hundred slots for each column, and more for those of a smaller service. There are but two, since from
// one to the other all hashes move.
func maglevSize(n int) uint64 {
	if n <= 655 {
		return 65537
	}
	return 1048583
}

// weightScale is the power of two above all weights: if the heaviest set the scale itself, its coming and going would
// change what all others get.
func weightScale(candidates []Candidate, columns []column) float64 {
	var most float64
	for _, c := range columns {
		most = max(most, candidates[c.index].Weight)
	}
	return math.Exp2(math.Ceil(math.Log2(most)))
}
