package balance

import (
	"math"
	"math/bits"
	"slices"
)

// ringPoints is what the heaviest candidate has, or up to half of it: ownership deviates by 9 to 15 %.
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
	scale := ringPoints / weightScale(candidates, columns)
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
