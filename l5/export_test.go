package l5

import "time"

// SetClock has a client that is made of c tell the time by now.
func SetClock(c *Config, now func() time.Time) { c.now = now }

// Soonest is the deadline before which no call to a service can be answered, as the last tick saw it.
func (c *Client) Soonest(service string) time.Time {
	return time.Unix(0, (*c.services.Load())[service].guard.soonest.Load())
}
