package balance

// Table draws indexes in proportion to weights, in constant time whatever their number: Vose's alias method
// (M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", 1991). It is
// immutable. An index of weight 0 is never drawn.
type Table struct {
	slots []slot
}

// slot is one column: below keep it draws its own index, from keep on the other one.
type slot struct {
	keep       uint32 // of 2^32
	own, other uint32
}

// NewTable returns a table for weights; negative ones count as 0. If all are 0 the table is empty.
func NewTable(weights []float64) Table {
	var total float64
	var indexes []uint32
	for i, w := range weights {
		if w > 0 {
			total += w
			indexes = append(indexes, uint32(i))
		}
	}
	n := len(indexes)
	if n == 0 {
		return Table{}
	}
	slots := make([]slot, n)
	scaled := make([]float64, n)
	var small, large []uint32 // columns that are underfull and overfull
	for column, index := range indexes {
		slots[column] = slot{keep: 1<<32 - 1, own: index, other: index}
		scaled[column] = weights[index] * float64(n) / total
		if scaled[column] < 1 {
			small = append(small, uint32(column))
		} else {
			large = append(large, uint32(column))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		slots[s].keep = uint32(min(scaled[s]*(1<<32), 1<<32-1))
		slots[s].other = slots[l].own
		scaled[l] -= 1 - scaled[s]
		if scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return Table{slots: slots} // what is left in either list differs from 1 by rounding alone
}

// Len returns how many indexes can be drawn.
func (t Table) Len() int { return len(t.slots) }

// Draw returns the index that 32 uniform random bits choose. The table must not be empty.
func (t Table) Draw(random uint32) uint32 {
	// The high half of the product is a uniform column, the low half what is left of the randomness: the coin.
	product := uint64(random) * uint64(len(t.slots))
	s := &t.slots[product>>32]
	if uint32(product) < s.keep {
		return s.own
	}
	return s.other
}
