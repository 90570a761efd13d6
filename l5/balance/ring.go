package balance

import (
	"math"
	"math/bits"
	"slices"
)

const (
	// ringPoints is what the heaviest candidate has, or up to half of it.
	ringPoints = 128
	// ringTable is up to how many columns a ring goes by the leading bits of a hash alone, so that owners can be laid out as a
	// table; from ringSearch on they are.
	ringTable  = 1 << 14
	ringSearch = 1 << 10
	// slotBits is how many bits these are: at 10,000 columns, two slots for each point.
	slotBits = 20
)

// eachPoint calls f with the place of each column's points, in proportion to its weight.
func eachPoint(candidates []Candidate, columns []column, f func(point uint64, column int)) {
	scale := ringPoints / weightScale(candidates, columns)
	for i, c := range columns {
		candidate := candidates[c.index]
		for k := range uint64(max(1, math.Round(scale*candidate.Weight))) {
			f(finish(candidate.Key+k*0x9e3779b97f4a7c15), i)
		}
	}
}

// newSlots lays the ring out as a table: the owner of a slot is that of its first hash. What a pick of thousands reads is then
// one cache line and no more, and making it sorts nothing.
func newSlots(candidates []Candidate, columns []column) []uint16 {
	const none = math.MaxUint64
	nearest := make([]uint64, 1<<slotBits) // point of each slot
	for i := range nearest {
		nearest[i] = none
	}
	owners := make([]uint16, len(nearest))
	eachPoint(candidates, columns, func(point uint64, column int) {
		if slot := point >> (64 - slotBits); point < nearest[slot] {
			nearest[slot], owners[slot] = point, uint16(column)
		}
	})
	owner := owners[slices.IndexFunc(nearest, func(point uint64) bool { return point != none })] // behind the end the ring begins anew
	for slot, point := range slices.Backward(nearest) {
		if point != none {
			owner = owners[slot]
		}
		owners[slot] = owner
	}
	return owners
}

// ring has the points of few columns, or of very many, with an index by the leading bits so that finding a point is no search.
type ring struct {
	points []uint64 // 40 bits of hash, then 24 of column; in order
	first  []uint32 // by the leading bits of a hash: the first point at or after it
	shift  uint
	mask   uint64 // of a hash, what matters
}

const (
	columnBits = 24
	columnMask = 1<<columnBits - 1
)

func newRing(candidates []Candidate, columns []column) *ring {
	r := &ring{mask: ^uint64(columnMask)}
	if len(columns) <= ringTable {
		r.mask = ^uint64(1<<(64-slotBits) - 1) // as the table has it: growing into one moves no hash
	}
	eachPoint(candidates, columns, func(point uint64, column int) {
		r.points = append(r.points, point&^columnMask|uint64(column))
	})
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
	hash &= r.mask
	at := int(r.first[hash>>r.shift])
	for at < len(r.points) && r.points[at] < hash {
		at++
	}
	if at == len(r.points) {
		at = 0
	}
	return uint32(r.points[at] & columnMask)
}
