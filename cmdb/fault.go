package cmdb

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("cmdb: not found")
	// ErrKind says that a kind is unknown.
	ErrKind = errors.New("cmdb: unknown kind")
	// ErrInvalid matches every Faults: a declaration is wrong and nothing was changed.
	ErrInvalid = errors.New("cmdb: invalid declaration")
	// ErrStale says that the world moved since the plan was made: plan again, look, and apply that.
	ErrStale = errors.New("cmdb: the plan is stale; plan again and apply the new one")
	// ErrNoDevice matches every *NoDeviceError.
	ErrNoDevice = errors.New("cmdb: not enough idle devices")
	// ErrState matches every *StateError: the device's state, holder or expiry forbids the verb.
	ErrState = errors.New("cmdb: the device's state does not allow this")
	// ErrEnded says that the acquisition with this owner and key has been given back, by release or expiry.
	ErrEnded = errors.New("cmdb: the acquisition has ended; acquire again under a new key")
	// ErrKeyReused says that an owner used one key for two different requests.
	ErrKeyReused = errors.New("cmdb: the key was used for another request; use a key for one request only")
	// ErrRequest says that the arguments of a call are wrong.
	ErrRequest = errors.New("cmdb: invalid request")
)

// Fault is one thing wrong in a declaration: where, what, and how to mend it.
type Fault struct {
	Document string `json:"document,omitempty"` // file or name of the source
	Line     int    `json:"line,omitempty"`
	Kind     Kind   `json:"kind,omitempty"`
	Name     string `json:"name,omitempty"` // of the object
	Field    string `json:"field,omitempty"`
	Value    string `json:"value,omitempty"`
	Problem  string `json:"problem"`
	Mend     string `json:"mend"`
}

func (f Fault) Error() string {
	var b strings.Builder
	if f.Document != "" {
		b.WriteString(f.Document)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Kind != "" || f.Name != "" {
		b.WriteString(strings.TrimSpace(string(f.Kind)+" "+f.Name) + ": ")
	}
	if f.Field != "" {
		fmt.Fprintf(&b, "%s %q ", f.Field, clip(f.Value))
	}
	fmt.Fprintf(&b, "%s; %s", f.Problem, f.Mend)
	return b.String()
}

// Faults are all faults of a source, in its order.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrInvalid) true.
func (f Faults) Is(target error) bool { return target == ErrInvalid }

// clip bounds what an error repeats of its input.
func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:77]) + "..."
	}
	return s
}

// StateError says why a verb of the life cycle was refused.
type StateError struct {
	Device  string
	Verb    string
	State   State
	Holder  string    // who holds it, if held
	Owner   string    // who asked, if the verb is the holder's
	Allowed []State   // from which the verb is possible, if the state was the reason
	Expired time.Time // when the hold ended, if that was the reason
}

func (e *StateError) Error() string {
	switch {
	case !e.Expired.IsZero():
		return fmt.Sprintf("cmdb: %s device %s: the hold of %q ended at %s; acquire again, and renew a long hold",
			e.Verb, e.Device, e.Owner, e.Expired.UTC().Format(time.RFC3339))
	case len(e.Allowed) > 0:
		return fmt.Sprintf("cmdb: %s device %s: it is %s%s; this needs %s", e.Verb, e.Device, e.State, holderSuffix(e.Holder), joinStates(e.Allowed))
	}
	return fmt.Sprintf("cmdb: %s device %s: it is %s%s, not by %q; only the holder may do this", e.Verb, e.Device, e.State, holderSuffix(e.Holder), e.Owner)
}

// Is makes errors.Is(err, ErrState) true.
func (e *StateError) Is(target error) bool { return target == ErrState }

func holderSuffix(holder string) string {
	if holder == "" {
		return ""
	}
	return fmt.Sprintf(" by %q", holder)
}

func joinStates(states []State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, " or ")
}

// NoDeviceError says how many devices were asked for and how many were free.
type NoDeviceError struct {
	Want      int
	Idle      int      // idle devices that match
	IdleTotal int      // idle devices of any kind
	Filter    string   // what was asked for, in words
	Taken     []string // of the names asked for, those that are not idle
}

func (e *NoDeviceError) Error() string {
	s := fmt.Sprintf("cmdb: acquire %d devices %s: %d idle match, %d idle in all", e.Want, e.Filter, e.Idle, e.IdleTotal)
	if len(e.Taken) > 0 {
		s += "; not idle: " + strings.Join(e.Taken, ", ")
	}
	return s + "; ask for fewer, widen city, site or types, or add devices"
}

// Is makes errors.Is(err, ErrNoDevice) true.
func (e *NoDeviceError) Is(target error) bool { return target == ErrNoDevice }
