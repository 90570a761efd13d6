package scale

import (
	"encoding/json"
	"fmt"
	"strings"
)

// EventsOf reads what a record of the controller's Store tells: of an order, each step that it has come through (Ordered,
// Launched, Ended), and of what is remembered of a module its last decision (Decided). A record that was written again tells
// its earlier steps again: an order and a step, or a module and the time of a decision, name an event. Who follows the
// Store (list, then watch) misses no step of an order, whatever crashes.
func EventsOf(record Record) ([]Event, error) {
	switch {
	case strings.HasPrefix(record.Key, openPrefix), strings.HasPrefix(record.Key, pastPrefix):
		var o Order
		if err := json.Unmarshal(record.Value, &o); err != nil {
			return nil, fmt.Errorf("scale: read record %q: %w; it was not written by this package: remove it", record.Key, err)
		}
		return o.events(), nil
	case strings.HasPrefix(record.Key, statePrefix):
		var m memory
		if err := json.Unmarshal(record.Value, &m); err != nil {
			return nil, fmt.Errorf("scale: read record %q: %w; it was not written by this package: remove it", record.Key, err)
		}
		if m.Decision.Reason.Code == "" {
			return nil, nil // paused or ordered by hand, and never decided about
		}
		return []Event{{At: m.Decision.At, Module: m.Module, Kind: Decided, Reason: m.Decision.Reason, Decision: &m.Decision}}, nil
	}
	return nil, nil
}

// events are the steps that an order has come through. When it was launched is not kept: At is zero there.
func (o Order) events() []Event {
	out := []Event{{At: o.Created, Module: o.Module, Kind: Ordered, Reason: o.Reason, Order: &o}}
	if o.ID != "" {
		out = append(out, Event{Module: o.Module, Kind: Launched, Reason: o.Reason, Order: &o})
	}
	if o.State == Done || o.State == Failed {
		out = append(out, Event{At: o.Ended, Module: o.Module, Kind: Ended, Reason: o.Reason, Order: &o})
	}
	return out
}
