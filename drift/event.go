package drift

import "time"

// Event is one change of a finding, as an Agent goes along.
type Event struct {
	At      time.Time `json:"at"`
	Kind    EventKind `json:"kind"`
	Finding Finding   `json:"finding"`
}

// EventKind says what happened to the finding.
type EventKind string

const (
	EventFound     EventKind = "found"     // it is new
	EventChanged   EventKind = "changed"   // it differs otherwise than before, or its repair may go ahead now
	EventHeld      EventKind = "held"      // its repair is kept back; Reason says why
	EventIntent    EventKind = "intent"    // it will be repaired now: Expected is what will be, Actual what will be gone
	EventFailed    EventKind = "failed"    // the repair failed or brought nothing; it is tried again
	EventEscalated EventKind = "escalated" // no more repairs; Reason says why
	EventClosed    EventKind = "closed"    // it is no more; Status says whether it was repaired
)

func (e Event) String() string {
	text := string(e.Kind) + " " + e.Finding.Key().String()
	switch e.Kind {
	case EventFound, EventChanged, EventIntent:
		text += ": expected " + e.Finding.Expected + ", actual " + e.Finding.Actual
	case EventClosed:
		text += ": " + string(e.Finding.Status)
	}
	if e.Finding.Reason.Code != "" {
		text += " (" + e.Finding.Reason.String() + ")"
	}
	return text
}
