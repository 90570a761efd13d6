package l5

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// heard keeps what an instance said of its load.
func (e *endpointGuard) heard(l limit.Load) {
	high, low := math.Float32bits(float32(l.Utilization)), math.Float32bits(float32(l.Capacity()))
	e.load.Store(uint64(high)<<32 | uint64(low))
}

// listen returns the utilisation that the instance said since the last step, 0 if nothing, and moves the capacity along.
// Callers hold the service's mu.
func (e *endpointGuard) listen(now time.Time) (utilization float64) {
	word := e.load.Swap(0)
	capacity := float64(math.Float32frombits(uint32(word)))
	switch {
	case capacity == 0:
	case now.Sub(e.lastHeard) >= capacityAgain:
		e.capacity, e.lastHeard = capacity, now
	default:
		e.capacity += capacityGain * (capacity - e.capacity)
		e.lastHeard = now
	}
	return float64(math.Float32frombits(uint32(word >> 32)))
}

const (
	capacityGain  = 0.2             // of a new one: they are measured under a load that comes in bursts
	capacityStep  = 0.1             // a factor that moves less is not told: a new table is not for free
	capacityAgain = 5 * time.Second // after which what was heard is old, and a factor is told again: the balancer forgets it, too
	capacityBatch = 32              // at most so many are told at a time, each costs a look at all instances
)

// capacities tells the balancer what the instances said that they can do, for their weight and against the median of those
// that said it: what they have in common says nothing about how to divide the calls. Callers hold mu.
func (s *service) capacities(now time.Time) {
	var heard []*endpoint
	for _, e := range s.endpoints {
		if g := &e.state.guard; g.capacity > 0 && now.Sub(g.lastHeard) < capacityAgain {
			heard = append(heard, e)
		}
	}
	if len(heard) < 2 {
		return
	}
	perWeight := func(e *endpoint) float64 {
		return e.state.guard.capacity / max(e.state.instance.Load().EffectiveWeight(), 1)
	}
	ordered := slices.SortedFunc(slices.Values(heard), func(a, b *endpoint) int { return cmp.Compare(perWeight(a), perWeight(b)) })
	median := perWeight(ordered[len(ordered)/2])
	told := 0
	for _, e := range heard {
		g := &e.state.guard
		factor := perWeight(e) / median
		if math.Abs(factor-g.factor) < capacityStep && now.Sub(g.told) < capacityAgain {
			continue
		}
		if told++; told > capacityBatch {
			break
		}
		g.factor, g.told = factor, now
		s.step(now, balance.Capacity{Addr: e.addr, Factor: factor})
	}
}
