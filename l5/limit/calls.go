package limit

import "time"

// Calls is what became of the calls of one window of time: the event that all cores are stepped with.
type Calls struct {
	// Span is how long the window was.
	Span time.Duration
	// Succeeded calls, and the sum of their latencies.
	Succeeded int64
	Latency   time.Duration
	// Failed calls were answered, with an error.
	Failed int64
	// TimedOut calls got no answer in time.
	TimedOut int64
	// Rejected calls were refused by the callee for overload.
	Rejected int64
	// Refused calls never left: this side's own doing. They are no failures of the callee.
	Refused int64
	// Asked is how many calls were asked for by priority, counted only while some are refused.
	Asked [priorities]int64
	// Load is the callee's utilisation as it reports it, the mean of the window: 1 is full; 0 is not reported.
	Load float64
}

// sent is how many calls left and came to an end.
func (c Calls) sent() int64 { return c.Succeeded + c.Failed + c.TimedOut + c.Rejected }

// accepted is how many of them the callee worked on: an error is an answer, too.
func (c Calls) accepted() int64 { return c.Succeeded + c.Failed }

// add joins two windows that follow one another.
func (c Calls) add(d Calls) Calls {
	n, m := float64(c.sent()), float64(d.sent())
	switch {
	case c.Load == 0 || d.Load == 0:
		c.Load += d.Load
	case n+m > 0:
		c.Load = (c.Load*n + d.Load*m) / (n + m)
	}
	c.Span += d.Span
	c.Succeeded += d.Succeeded
	c.Latency += d.Latency
	c.Failed += d.Failed
	c.TimedOut += d.TimedOut
	c.Rejected += d.Rejected
	c.Refused += d.Refused
	for i, n := range d.Asked {
		c.Asked[i] += n
	}
	return c
}

// mean is the mean latency of the successes; 0 without any.
func (c Calls) mean() time.Duration {
	if c.Succeeded <= 0 {
		return 0
	}
	return c.Latency / time.Duration(c.Succeeded)
}

// inUse is how many calls were in flight on average, by Little's law; calls that timed out are not in it.
func (c Calls) inUse() float64 {
	if c.Span <= 0 {
		return 0
	}
	return float64(c.Latency) / float64(c.Span)
}
