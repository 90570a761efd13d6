package balance

// newColumns builds the alias table of the candidates with a weight, which draws in proportion to weights in constant time
// (M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", 1991).
func newColumns(candidates []Candidate) []column {
	var total float64
	columns := make([]column, 0, len(candidates))
	for i, c := range candidates {
		if c.Weight > 0 {
			total += c.Weight
			columns = append(columns, column{loads: [2]*Load{c.Load, c.Load}, price: float32(1 / c.Weight), keep: 1<<32 - 1, index: uint32(i)})
		}
	}
	scaled := make([]float64, len(columns))
	var small, large []uint32 // columns that are underfull and overfull
	for i := range columns {
		c := &columns[i]
		c.other = uint32(i)
		scaled[i] = candidates[c.index].Weight * float64(len(columns)) / total
		if scaled[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		columns[s].keep = uint32(min(scaled[s]*(1<<32), 1<<32-1))
		columns[s].other, columns[s].loads[1] = l, columns[l].loads[0]
		scaled[l] -= 1 - scaled[s]
		if scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return columns // what is left in either list differs from 1 by rounding alone
}
