package drift

import (
	"fmt"
	"strings"
	"time"
)

// Finding is one difference between what a device should be and what it is.
type Finding struct {
	Device   string   `json:"device,omitempty"`
	Kind     Kind     `json:"kind"`
	Subject  string   `json:"subject"`            // a path, a process's name, or "tcp/8080"
	Fields   []string `json:"fields"`             // what differs: see the Field constants
	Expected string   `json:"expected,omitempty"` // of those fields, for people
	Actual   string   `json:"actual,omitempty"`   // of those fields, for people

	Status    Status    `json:"status,omitempty"`
	Verdict   Verdict   `json:"verdict,omitempty"`
	Reason    Reason    `json:"reason,omitzero"` // why it has this status
	Who       Who       `json:"who,omitzero"`
	FirstSeen time.Time `json:"first_seen,omitzero"` // since when it differs, by the device's clock
	Repairs   int       `json:"repairs,omitempty"`   // attempts so far

	// What was declared, for the Repairer. At most one is set; none is for something that must not be there.
	File    *File    `json:"file,omitempty"`
	Process *Process `json:"process,omitempty"`
	Port    *Port    `json:"port,omitempty"`
}

// What can differ.
const (
	FieldMissing    = "missing"    // it is not there at all
	FieldUnexpected = "unexpected" // it is there and must not be
	FieldType       = "type"       // a link instead of a file, and the like
	FieldContent    = "content"
	FieldMode       = "mode"
	FieldTarget     = "target"   // where a link points
	FieldCount      = "count"    // of processes
	FieldExe        = "exe"      // a process of the name runs something else
	FieldArgv       = "argv"     // a process of the name runs with other arguments
	FieldStopped    = "stopped"  // it is there, but a signal or a debugger has stopped it
	FieldListener   = "listener" // the port is held by another process
)

// Key names a finding on its device.
type Key struct {
	Kind    Kind
	Subject string
}

func (k Key) String() string { return string(k.Kind) + " " + k.Subject }

func (k Key) compare(other Key) int {
	if k.Kind != other.Kind {
		return strings.Compare(string(k.Kind), string(other.Kind))
	}
	return strings.Compare(k.Subject, other.Subject)
}

// Key is the finding's kind and subject: a device has at most one open finding of each.
func (f Finding) Key() Key { return Key{f.Kind, f.Subject} }

// same says whether two findings tell of the same difference.
func (f Finding) same(other Finding) bool {
	return f.Kind == other.Kind && f.Subject == other.Subject && f.Expected == other.Expected && f.Actual == other.Actual &&
		strings.Join(f.Fields, ",") == strings.Join(other.Fields, ",")
}

func (f Finding) has(field string) bool {
	for _, have := range f.Fields {
		if have == field {
			return true
		}
	}
	return false
}

// String is one line for a log or a terminal.
func (f Finding) String() string {
	return fmt.Sprintf("%s %s: %s: expected %s, actual %s", f.Kind, f.Subject, strings.Join(f.Fields, ", "), f.Expected, f.Actual)
}

// Status is how far a finding has got.
//
//	            differs                         may be repaired
//	(nothing) ----------> open  -----------------------------------> repairing
//	    ^                 |  ^  hold, settling, rate                     |
//	    |                 |  +------------------------> held             |
//	    |   as declared   |                                             |
//	    |   by itself     v        too many repairs, or none helps      |
//	    +-------------- gone      escalated <----------------------------+
//	    +-------------------------------------------- repaired <--------+
//
// A difference that comes back opens anew. Ignored is set by a Ledger only.
type Status string

const (
	StatusOpen      Status = "open"
	StatusHeld      Status = "held"      // repair is wanted, but kept back; Reason says why
	StatusRepairing Status = "repairing" // the intent was announced, the Repairer is at work
	StatusRepaired  Status = "repaired"  // closed by our repair
	StatusGone      Status = "gone"      // closed without one
	StatusEscalated Status = "escalated" // repair does not help: a person or a flow must see to it
	StatusIgnored   Status = "ignored"   // somebody said that it may stay, in the ledger
)

// Closed says whether the difference is no more.
func (s Status) Closed() bool { return s == StatusRepaired || s == StatusGone }

// Verdict says what a difference means.
type Verdict string

const (
	Unauthorised Verdict = "unauthorised" // nobody who may has asked for it
	Deploying    Verdict = "deploying"    // a flow is at work on the device
	Settling     Verdict = "settling"     // the declaration changed a moment ago, the device has not followed yet
	Override     Verdict = "override"     // an emergency override, with an expiry
	Suspect      Verdict = "suspect"      // so many devices differ alike that the declaration is suspected
	Corrective   Verdict = "corrective"   // what we did to bring the declared state back
)

// Reason is why something was done, or not: a code for machines and metrics, and the numbers in words.
type Reason struct {
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (r Reason) String() string {
	if r.Detail == "" {
		return r.Code
	}
	return r.Code + ": " + r.Detail
}

// Who is the process behind a difference, as far as it is known. The collectors of this package know it for
// processes and ports; file events tell nothing of their writer.
type Who struct {
	PID int    `json:"pid,omitempty"`
	Exe string `json:"exe,omitempty"`
}

// Coverage is a collector's statement of what its part of a live state rests on, and what it does not see.
type Coverage struct {
	Collector string    `json:"collector"`        // "files", "processes", "ports"
	Kinds     []Kind    `json:"kinds"`            // which it looks after
	Via       string    `json:"via"`              // by what means, such as "fsnotify+rescan" or "sock_diag"
	At        time.Time `json:"at"`               // when it last looked
	Blind     bool      `json:"blind,omitempty"`  // it saw nothing at all: its kinds are not compared
	Gaps      []Gap     `json:"gaps,omitempty"`   // at most 100; More counts the rest
	More      int       `json:"more,omitempty"`   // gaps not listed
	Events    bool      `json:"events,omitempty"` // changes are noticed as they happen, not by the next rescan
}

// Gap is one thing that a collector does not see.
type Gap struct {
	Subject string    `json:"subject,omitempty"` // a path, a process; empty: not one subject but a whole sort
	What    string    `json:"what"`
	Why     string    `json:"why"`
	Since   time.Time `json:"since,omitzero"`
	// Unknown says that the subject's state could not be read: it is neither as declared nor different.
	Unknown bool `json:"unknown,omitempty"`
}

const maxGaps = 100

func (c *Coverage) gap(g Gap) {
	if len(c.Gaps) >= maxGaps && !g.Unknown {
		c.More++
		return
	}
	c.Gaps = append(c.Gaps, g)
}
