package balance

import "time"

// Event is something that happened to the instances of a service.
type Event interface{ event() }

// Members replaces the membership: those that stay keep their health.
type Members []Member

// Member is one instance as the name service knows it.
type Member struct {
	Addr    string
	Weight  float64 // full weight; 0 takes no calls
	Gray    float64 // part of the weight that a rollout lets it have, 0..1
	Suspect bool    // the registry doubts it, too
}

// Struck says that an instance reached its limit of failures in a row.
type Struck struct{ Addr, Evidence string }

// Probed says how a probe ended.
type Probed struct {
	Addr string
	OK   bool
}

// Window says what calls did since the last Window.
type Window []Sample

// Sample is what the calls of one instance did.
type Sample struct {
	Addr       string
	Successes  int64
	Failures   int64
	LatencySum time.Duration // of the successes
	InFlight   int64         // at the end of the window
}

// Capacity says what an instance reported of itself: how much of its weight it can carry now, 1 being all. It counts for
// capacityFor, between leastCapacity and mostCapacity.
type Capacity struct {
	Addr   string
	Factor float64
}

// Tick says that time went by.
type Tick struct{}

func (Members) event()  {}
func (Struck) event()   {}
func (Probed) event()   {}
func (Window) event()   {}
func (Capacity) event() {}
func (Tick) event()     {}

// Action is something that the caller of Step is to do.
type Action interface{ action() }

// Probe asks whether an instance can be reached; the answer is a Probed. Probes alone bring an ejected instance back: no
// user's call is spent on finding out.
type Probe struct{ Addr string }

// Moved says that an instance changed its state; it is to be told, nothing more.
type Moved struct {
	Addr     string
	From, To Health
	Reason   string
}

// Reweighed says that Statuses have other weights than before: build a new Picker.
type Reweighed struct{}

func (Probe) action()     {}
func (Moved) action()     {}
func (Reweighed) action() {}
