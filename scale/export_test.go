package scale

import "time"

// DecideWith decides with a planted bug, unless it is empty.
func DecideWith(now time.Time, m Module, h History, bug string) Decision {
	return decide(now, m, h, bug)
}

// Plant makes a controller misbehave.
func (c *Controller) Plant(bug string) { c.bug = bug }
