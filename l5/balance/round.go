package balance

import "math"

// maxRound bounds the work of making a round in the smooth order: picks of a round times candidates.
const maxRound = 1 << 18

// newRound returns the order of one round, or the strides if the round would be too long.
func newRound(candidates []Candidate, columns []column) (order []uint32, strides []uint16) {
	weights, length := wholeWeights(candidates, columns)
	if length*len(columns) <= maxRound {
		return smoothOrder(weights, length), nil
	}
	var most float64
	for _, c := range columns {
		most = max(most, candidates[c.index].Weight)
	}
	strides = make([]uint16, len(columns))
	for i, c := range columns {
		strides[i] = uint16(max(1, math.Round(candidates[c.index].Weight/most*math.MaxUint16)))
	}
	return nil, strides
}

// wholeWeights returns the weights as whole numbers without a common divisor, and their sum; the sum is
// math.MaxInt32 if they are no whole numbers, or too large.
func wholeWeights(candidates []Candidate, columns []column) ([]int, int) {
	weights := make([]int, len(columns))
	divisor, sum := 0, 0
	for i, c := range columns {
		w := candidates[c.index].Weight * 1000 // weights in force are products of factors of few digits
		if w > 1<<30 || math.Abs(w-math.Round(w)) > 1e-6 {
			return nil, math.MaxInt32
		}
		weights[i] = max(1, int(math.Round(w)))
		for a, b := divisor, weights[i]; ; {
			if b == 0 {
				divisor = a
				break
			}
			a, b = b, a%b
		}
	}
	for i := range weights {
		weights[i] /= divisor
		if sum += weights[i]; sum > maxRound {
			return nil, math.MaxInt32
		}
	}
	return weights, sum
}

// smoothOrder is one round of nginx's smooth weighted round robin: each candidate gains its weight in each turn, the one
// with the most is picked and pays the sum.
func smoothOrder(weights []int, length int) []uint32 {
	current := make([]int, len(weights))
	order := make([]uint32, length)
	for turn := range order {
		best := 0
		for i, w := range weights {
			current[i] += w
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= length
		order[turn] = uint32(best)
	}
	return order
}

// next takes the next turn. One atomic add orders all callers.
func (p *Picker) next() *column {
	if p.order != nil {
		return &p.columns[p.order[(p.turn.Add(1)-1)%uint64(len(p.order))]]
	}
	// Static stride (gRPC's A58): in each generation a column is skipped unless its sum of strides passes a full one.
	n := uint64(len(p.columns))
	for {
		turn := p.turn.Add(1) - 1
		i, generation := turn%n, turn/n
		stride := uint64(p.strides[i])
		const full = math.MaxUint16
		if (stride*generation+i*(full/2))%full >= full-stride {
			return &p.columns[i]
		}
	}
}
