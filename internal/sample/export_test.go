package sample

import "time"

// Capacity is the queue before the workers.
type Capacity struct{ c *capacity }

// NewCapacity completes the settings.
func NewCapacity(s Settings) Capacity {
	s, err := s.complete()
	if err != nil {
		panic(err)
	}
	return Capacity{newCapacity(s)}
}

// Admit takes a request in.
func (c Capacity) Admit(now time.Time) (time.Time, bool) { return c.c.admit(now) }
