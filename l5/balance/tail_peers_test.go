// One goroutine plays the model: there is nothing to race, and the detector makes it ten times slower.

//go:build !race

package balance_test

import (
	"math"
	"slices"
	"time"
)

// The peers' strategies, as the reproduction runs them.

type randomStrategy struct{ b *bed }

func (s randomStrategy) pick(send func(int))     { send(s.b.random.IntN(s.b.replicas)) }
func (s randomStrategy) done(int, time.Duration) {}

type roundRobinStrategy struct {
	b    *bed
	turn int
}

func (s *roundRobinStrategy) pick(send func(int)) {
	s.turn++
	send((s.turn - 1) % s.b.replicas)
}
func (s *roundRobinStrategy) done(int, time.Duration) {}

// wrrStrategy draws by the inverse of each replica's smoothed use of its processor, read once a second.
type wrrStrategy struct {
	b       *bed
	weights []float64
}

func newWRR(b *bed, caller int) strategy {
	s := &wrrStrategy{b: b, weights: slices.Repeat([]float64{1}, b.replicas)}
	b.every(time.Duration(caller)*time.Millisecond, time.Second, func() {
		for i, server := range b.servers {
			s.weights[i] = 1 / max(server.util, 0.05)
		}
	})
	return s
}

func (s *wrrStrategy) pick(send func(int)) { send(s.draw()) }

func (s *wrrStrategy) draw() int {
	var total float64
	for _, w := range s.weights {
		total += w
	}
	x := s.b.random.Float64() * total
	for i, w := range s.weights {
		if x -= w; x <= 0 {
			return i
		}
	}
	return s.b.replicas - 1
}
func (s *wrrStrategy) done(int, time.Duration) {}

// twoByRIF asks two replicas for their calls in flight and waits for the answer.
type twoByRIF struct{ b *bed }

func (s twoByRIF) pick(send func(int)) {
	x := s.b.random.IntN(s.b.replicas)
	y := s.b.random.IntN(s.b.replicas - 1)
	if y >= x {
		y++
	}
	first, firstRIF := -1, 0
	for _, replica := range []int{x, y} {
		s.b.ask(replica, func(inFlight int, _ time.Duration) {
			switch {
			case first < 0:
				first, firstRIF = replica, inFlight
			case firstRIF <= inFlight:
				send(first)
			default:
				send(replica)
			}
		})
	}
}
func (s twoByRIF) done(int, time.Duration) {}

// prequal keeps a pool of probes and chooses by the hot-cold rule.
type prequal struct {
	b         *bed
	pool      []probe
	worstNext bool
}

type probe struct {
	replica     int
	rif, probed int // calls in flight: with those sent since, and as probed
	latency     time.Duration
	at          time.Duration
}

const (
	prequalProbes   = 3 // per query
	prequalPool     = 4
	prequalTTL      = time.Second
	prequalQuantile = 0.8408964152537145 // 2^-0.25
)

func newPrequal(b *bed, _ int) strategy { return &prequal{b: b} }

func (p *prequal) pick(send func(int)) {
	p.probe()
	p.pool = slices.DeleteFunc(p.pool, func(q probe) bool { return p.b.now-q.at >= prequalTTL })
	choice := p.b.random.IntN(p.b.replicas)
	if len(p.pool) >= 2 {
		choice = p.choose()
	}
	p.remove()
	send(choice)
}

func (p *prequal) done(int, time.Duration) {}

func (p *prequal) probe() {
	for _, replica := range p.b.random.Perm(p.b.replicas)[:min(prequalProbes, p.b.replicas)] {
		p.b.ask(replica, func(inFlight int, latency time.Duration) {
			if len(p.pool) >= prequalPool {
				p.removeOldest()
			}
			p.pool = append(p.pool, probe{replica, inFlight, inFlight, latency, p.b.now})
		})
	}
}

func (p *prequal) threshold() int {
	latest := map[int]probe{}
	for _, q := range p.pool {
		if l, ok := latest[q.replica]; !ok || q.at >= l.at {
			latest[q.replica] = q
		}
	}
	var rifs []int
	for _, q := range latest {
		rifs = append(rifs, q.rif)
	}
	slices.Sort(rifs)
	return rifs[int(math.Floor(prequalQuantile*float64(len(rifs)-1)))]
}

func (p *prequal) choose() int {
	threshold := p.threshold()
	best, least, cold := -1, time.Duration(0), false
	for i, q := range p.pool {
		latency := q.latency * time.Duration(q.rif+1) / time.Duration(q.probed+1)
		switch isCold := q.rif <= threshold; {
		case isCold && (!cold || latency < least):
			best, least, cold = i, latency, true
		case !isCold && !cold && (best < 0 || q.rif < p.pool[best].rif):
			best = i
		}
	}
	replica := p.pool[best].replica
	for i := range p.pool {
		if p.pool[i].replica == replica {
			p.pool[i].rif++
		}
	}
	return replica
}

func (p *prequal) removeOldest() {
	oldest := 0
	for i, q := range p.pool {
		if q.at < p.pool[oldest].at {
			oldest = i
		}
	}
	p.pool = slices.Delete(p.pool, oldest, oldest+1)
}

// remove takes the oldest and the worst out in turns.
func (p *prequal) remove() {
	if len(p.pool) == 0 {
		return
	}
	p.worstNext = !p.worstNext
	if p.worstNext {
		p.removeOldest()
		return
	}
	threshold := p.threshold()
	worst, hot := 0, false
	for i, q := range p.pool {
		switch isHot := q.rif > threshold; {
		case isHot && (!hot || q.rif > p.pool[worst].rif):
			worst, hot = i, true
		case !isHot && !hot && q.latency > p.pool[worst].latency:
			worst = i
		}
	}
	p.pool = slices.Delete(p.pool, worst, worst+1)
}
