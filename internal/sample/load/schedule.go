package load

import (
	"math/rand/v2"
	"time"
)

// Schedule says when requests are to be sent: a function of seed and rates alone. It is not safe for
// concurrent use.
type Schedule struct {
	random  *rand.Rand
	poisson bool
	rate    float64
	next    time.Duration // since the start; the next request, if rate is not 0
}

// NewSchedule returns a schedule without requests. With poisson requests come at random, as from many
// independent callers; otherwise evenly.
func NewSchedule(seed uint64, poisson bool) *Schedule {
	return &Schedule{random: rand.New(rand.NewPCG(seed, 0)), poisson: poisson}
}

// SetRate changes the rate, in requests per second, from the moment at on.
func (s *Schedule) SetRate(at time.Duration, rate float64) {
	s.rate = rate
	s.next = at + s.gap()
}

// Next is when the next request is to be sent; false if none is.
func (s *Schedule) Next() (time.Duration, bool) { return s.next, s.rate > 0 }

// Advance goes on to the request after Next.
func (s *Schedule) Advance() { s.next += s.gap() }

func (s *Schedule) gap() time.Duration {
	if s.rate <= 0 {
		return 0
	}
	gap := 1 / s.rate
	if s.poisson {
		gap *= s.random.ExpFloat64()
	}
	return time.Duration(gap * float64(time.Second))
}
