package trigger

import (
	"fmt"
	"hash/fnv"
	"time"
)

// State is what a trigger has come to. It is stored with the trigger, in one record.
type State struct {
	Through   time.Time `json:"through,omitzero"`    // every time up to this is dealt with
	Waits     time.Time `json:"waits,omitzero"`      // a time whose start waits for the last execution's end
	Fired     int64     `json:"fired,omitempty"`     // entries that the history has had
	Last      time.Time `json:"last,omitzero"`       // when it started something
	Execution string    `json:"execution,omitempty"` // what it started last
	Paused    *Paused   `json:"paused,omitempty"`
}

// Paused says who paused a trigger.
type Paused struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Outcome is what became of a time, or a call.
type Outcome string

const (
	Started Outcome = "started"
	Skipped Outcome = "skipped" // the last execution had not ended
	Passed  Outcome = "missed"  // nobody looked when it was time
	Failed  Outcome = "failed"  // the flow could not be started
	Ignored Outcome = "ignored" // the webhook's condition was false
)

// Firing is one entry of a trigger's history.
type Firing struct {
	Trigger   string    `json:"trigger"`
	N         int64     `json:"n"`            // 1, 2, ...
	At        time.Time `json:"at"`           // when it was dealt with
	Due       time.Time `json:"due,omitzero"` // of a schedule: when it was due
	Outcome   Outcome   `json:"outcome"`
	Execution string    `json:"execution,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	By        string    `json:"by,omitempty"` // who fired it, if a person did
}

// decision is what to do about a schedule now.
type decision struct {
	starts  []time.Time // due times to start the flow for
	firings []Firing    // of what is not started
	state   State       // afterwards
	next    time.Time   // when to look again; zero: only when something changes
}

// decide is the pure core of schedules: what to do at a moment, given what was dealt with, and whether the last execution runs still. It
// reads no clock.
//
//	due -> on time? -> nothing runs? -> start
//	          |             `-> skip | wait | start beside it
//	          `-> missed: skip | once | all
func (c *compiled) decide(now time.Time, state State, running bool) decision {
	s := c.Schedule
	d := decision{state: state}
	if state.Paused != nil {
		return d
	}
	if !state.Waits.IsZero() && !running {
		d.starts = append(d.starts, state.Waits)
		d.state.Waits, running = time.Time{}, s.Overlap != OverlapAllow
	}
	var late []time.Time // the last ones that were missed
	missed := 0
	at, ok := c.cron.next(state.Through)
	for ; ok && !c.moment(at).After(now); at, ok = c.cron.next(at) {
		d.state.Through = at
		if now.Sub(c.moment(at)) <= time.Duration(s.Grace) {
			running = c.begin(&d, now, at, running)
			continue
		}
		if missed++; missed > 10*MaxMissed { // a long time: go to its end at once
			if last, found := c.cron.last(at, now.Add(-time.Duration(s.Grace)-time.Duration(s.Jitter))); found && s.Missed != MissedAll {
				late, at = append(late, last), last
				d.state.Through = last
				continue
			}
		}
		if late = append(late, at); len(late) > MaxMissed {
			late = late[1:]
		}
	}
	if ok {
		d.next = c.moment(at)
	}
	c.makeUp(&d, now, late, missed, running)
	return d
}

// makeUp deals with the times that were missed.
func (c *compiled) makeUp(d *decision, now time.Time, late []time.Time, missed int, running bool) {
	if missed == 0 {
		return
	}
	switch c.Schedule.Missed {
	case MissedOnce:
		if late = late[len(late)-1:]; len(d.starts) > 0 || !d.state.Waits.IsZero() {
			late = nil // one starts anyway
		}
	case MissedSkip:
		late = nil
	}
	if left := missed - len(late); left > 0 {
		d.firings = append(d.firings, Firing{At: now, Outcome: Passed, Reason: fmt.Sprintf("%d times up to %s passed unattended", left, d.state.Through.Format(time.RFC3339))})
	}
	if c.Schedule.Missed == MissedAll {
		// Each of them was asked for, so they do not stand in one another's way.
		d.starts = append(late, d.starts...)
		return
	}
	for _, at := range late {
		running = c.begin(d, now, at, running)
	}
}

// begin starts the flow for a due time, unless the last execution is in the way; it reports whether one runs then.
func (c *compiled) begin(d *decision, now, due time.Time, running bool) bool {
	if !running || c.Schedule.Overlap == OverlapAllow {
		d.starts = append(d.starts, due)
		return c.Schedule.Overlap != OverlapAllow
	}
	why := "the execution that was started last has not ended"
	if c.Schedule.Overlap == OverlapWait {
		if d.state.Waits.IsZero() {
			d.state.Waits = due
			return true
		}
		why += ", and another start waits for that"
	}
	d.firings = append(d.firings, Firing{At: now, Due: due, Outcome: Skipped, Reason: why})
	return true
}

// moment is when a due time is acted on: its jitter later, which is the same wherever it is worked out.
func (c *compiled) moment(due time.Time) time.Time {
	if c.Schedule.Jitter == 0 {
		return due
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", c.Name, due.Unix())
	return due.Add(time.Duration(h.Sum64() % uint64(c.Schedule.Jitter)))
}
