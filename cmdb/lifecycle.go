package cmdb

import (
	"fmt"
	"slices"
	"time"
)

// State is where a device is in its life. The verbs of DB are the only way from one to another:
//
//	         Acquire            Serve
//	+------+ -------> +------+ -------> +------------+
//	| idle |          | held |          | in_service |
//	+------+ <------- +------+ <------- +------------+
//	 |  ^  |  Release  | ^ | ^    Hold    ^       |
//	 |  |  |  expiry   | | +-+ Renew      |       |
//	 |  |  |           | +----------------+       |
//	 |  |  |           |   expiry of a Hold       |
//	 |  |  |           v MarkFaulty, Forfeit      |
//	 |  |  | MarkFaulty                           |
//	 |  |  +-----> +--------+ <-------------------+
//	 |  +--------- | faulty |     MarkFaulty
//	 |    Repair   +--------+
//	 | Retire          | Retire
//	 v                 v
//	+-------------------+
//	|      retired      |   (only a retired device can be deleted)
//	+-------------------+
//
// So idle + held + in service + faulty + retired is constant but for devices that an apply declares or deletes.
type State string

const (
	Idle      State = "idle"       // free
	Held      State = "held"       // reserved by one holder until a moment
	InService State = "in_service" // works for a module
	Faulty    State = "faulty"     // out of use until repaired
	Retired   State = "retired"    // never used again
)

// States lists the five states.
func States() []State { return []State{Idle, Held, InService, Faulty, Retired} }

// verb is one arrow of the picture.
type verb string

const (
	verbAcquire verb = "acquire"
	verbRelease verb = "release"
	verbExpire  verb = "expire"
	verbRenew   verb = "renew"
	verbServe   verb = "serve"
	verbHold    verb = "hold"
	verbForfeit verb = "forfeit"
	verbFault   verb = "mark_faulty"
	verbRepair  verb = "repair"
	verbRetire  verb = "retire"
)

// from lists the states that a verb leaves.
func (v verb) from() []State {
	switch v {
	case verbAcquire:
		return []State{Idle}
	case verbRelease, verbExpire, verbRenew, verbServe, verbForfeit:
		return []State{Held}
	case verbHold:
		return []State{InService}
	case verbFault:
		return []State{Idle, Held, InService}
	case verbRepair:
		return []State{Faulty}
	case verbRetire:
		return []State{Idle, Faulty}
	}
	return nil
}

// move is a verb with what it needs.
type move struct {
	verb   verb
	owner  string    // acquire, release, renew, serve, hold, forfeit
	until  time.Time // acquire, renew, hold
	module string    // acquire, serve: "" keeps what is there
	fault  string    // mark_faulty, forfeit
	// acquisition is its name, for acquire.
	acquisition string
}

// step is the life cycle: it returns the device after a move, or a *StateError. It never changes d.
func step(now time.Time, d *Device, m move) (*Device, error) {
	if !slices.Contains(m.verb.from(), d.State) {
		return nil, &StateError{Device: d.Name, Verb: string(m.verb), State: d.State, Holder: d.Holder, Allowed: m.verb.from()}
	}
	switch m.verb {
	case verbRelease, verbRenew, verbServe, verbForfeit:
		if d.Holder != m.owner {
			return nil, &StateError{Device: d.Name, Verb: string(m.verb), State: d.State, Holder: d.Holder, Owner: m.owner}
		}
	}
	switch m.verb {
	case verbRenew, verbServe:
		if !now.Before(d.HeldUntil) {
			return nil, &StateError{Device: d.Name, Verb: string(m.verb), State: d.State, Holder: d.Holder, Owner: m.owner, Expired: d.HeldUntil}
		}
	case verbExpire:
		if now.Before(d.HeldUntil) {
			return nil, fmt.Errorf("cmdb: device %s: its hold lasts until %s", d.Name, d.HeldUntil.Format(time.RFC3339))
		}
	}
	out := *d
	if m.verb != verbRenew {
		out.Since = now
	}
	switch m.verb {
	case verbAcquire, verbHold:
		out.State, out.Holder, out.HeldUntil, out.HeldFrom = Held, m.owner, m.until, d.State
		if m.verb == verbAcquire {
			out.Acquisition = m.acquisition
		} else if !ownAcquisition(d.Acquisition, m.owner) {
			out.Acquisition = "" // another owner empties it: its first owner has no claim any more
		}
		if m.module != "" {
			out.Module = m.module
		}
	case verbRenew:
		out.HeldUntil = m.until
	case verbServe:
		out.unhold(InService)
		if m.module != "" {
			out.Module = m.module
		}
	case verbRelease:
		out.unhold(Idle)
	case verbExpire:
		out.unhold(Idle)
		if d.HeldFrom == InService {
			out.State, out.Module = InService, d.Module
		}
	case verbFault, verbForfeit:
		out.unhold(Faulty)
		out.Fault = m.fault
	case verbRepair:
		out.unhold(Idle)
	case verbRetire:
		out.unhold(Retired)
	}
	return &out, nil
}

// unhold ends whatever hold there is and enters state. A device in service keeps its module, and from which
// acquisition it came: the owner may have to undo that.
func (d *Device) unhold(state State) {
	d.State, d.Holder, d.HeldUntil, d.HeldFrom, d.Fault = state, "", time.Time{}, "", ""
	if state != InService {
		d.Module, d.Acquisition = "", ""
	}
}
