package balance_test

import (
	"math"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// Whatever the weights, every policy picks among the candidates that have one.
func TestPickerOfAbsurdWeights(t *testing.T) {
	t.Parallel()
	for policy := range balance.Policy(16) {
		for _, weights := range [][]float64{
			{math.NaN(), math.Inf(1), 1}, {math.Inf(1), math.Inf(1), math.NaN()}, {math.MaxFloat64, math.MaxFloat64, math.Inf(-1)},
			{math.SmallestNonzeroFloat64, 1, math.NaN()}, {math.NaN(), math.NaN(), math.NaN()},
		} {
			var candidates []balance.Candidate
			could := 0
			for i, w := range weights {
				candidates = append(candidates, balance.Candidate{Weight: w, Load: new(balance.Load), Key: uint64(i + 1)})
				if w > 0 {
					could++
				}
			}
			p := balance.NewPicker(policy, candidates, 0)
			if p.Len() != could {
				t.Fatalf("%v of %v: %d can be picked, want %d", policy, weights, p.Len(), could)
			}
			for n := range uint64(64) {
				i, _ := p.Pick(n*0x9e3779b97f4a7c15, n*0xbf58476d1ce4e5b9)
				if i < 0 && could > 0 || i >= 0 && !(weights[i] > 0) {
					t.Fatalf("%v of %v: picked %d", policy, weights, i)
				}
			}
		}
	}
}
