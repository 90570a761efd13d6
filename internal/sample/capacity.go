package sample

import "time"

// capacity is a queue before a number of workers, without clock: it says when a request will have been served.
//
//	arrive --> waiting (at most queue) --> a worker, for service --> served
//	   +---> full: refused
type capacity struct {
	service time.Duration
	queue   int
	free    []time.Time // when each worker is free
	starts  []time.Time // of those that wait, in order
}

func newCapacity(s Settings) *capacity {
	return &capacity{
		service: time.Duration(float64(time.Second) * float64(s.Workers) / s.Rate),
		queue:   s.Queue,
		free:    make([]time.Time, s.Workers),
	}
}

// admit takes a request in, or refuses it because the queue is full.
func (c *capacity) admit(now time.Time) (served time.Time, ok bool) {
	waiting := 0
	for waiting < len(c.starts) && !c.starts[waiting].After(now) {
		waiting++
	}
	c.starts = c.starts[waiting:]
	first := 0
	for i := range c.free {
		if c.free[i].Before(c.free[first]) {
			first = i
		}
	}
	start := now
	if c.free[first].After(now) {
		if len(c.starts) >= c.queue {
			return time.Time{}, false
		}
		start = c.free[first]
		c.starts = append(c.starts, start)
	}
	c.free[first] = start.Add(c.service)
	return c.free[first], true
}
