package drift

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Desired knows what the device should be.
type Desired interface {
	// Desired returns the declared state and its generation: a name that changes when the state does. The
	// agent never changes the state and expects that nobody else does. An error keeps the last state in force.
	Desired(ctx context.Context) (State, string, error)
	// Changed is received from when the declaration may have changed. A nil channel never is; the agent
	// asks again with each rescan anyway.
	Changed() <-chan struct{}
}

// Repairer brings one subject back to what is declared. It is called only in mode Repair, or for an Order; from
// several goroutines, but never twice at once for a subject. ErrCannotRepair, wrapped or not, says that it never
// can; any other error is tried again.
type Repairer interface {
	Repair(ctx context.Context, f Finding) error
}

// Reporter takes the agent's reports to those who read them. A report holds all that is open; one that fails is
// replaced by a later one.
type Reporter interface {
	Report(ctx context.Context, r Report) error
}

// Report is what an agent says of its device. A finding that an earlier report had and this one has not is closed.
type Report struct {
	Device     string     `json:"device"`
	Generation string     `json:"generation"` // of the declaration compared with; empty if none was got yet
	At         time.Time  `json:"at"`         // by the device's clock
	Findings   []Finding  `json:"findings,omitempty"`
	More       int        `json:"more,omitempty"`   // open findings beyond Config.MaxFindings
	Closed     []Finding  `json:"closed,omitempty"` // closed since the last report that was taken
	Coverage   []Coverage `json:"coverage,omitempty"`
}

// Config sets up an Agent. A zero field means the default that is named.
type Config struct {
	Device     string      // name of the device; required
	Desired    Desired     // required
	Collectors []Collector // required; no kind may be looked after by two
	Repairer   Repairer    // required if Mode or one of Modes is Repair
	Reporter   Reporter    // default: none; read Findings or take OnEvent

	Mode  Mode          // what to do about findings; default Observe
	Modes map[Kind]Mode // overrides Mode for a kind

	Rescan time.Duration // between two full looks at the files, events or not; default 1m
	Poll   time.Duration // between two looks at processes and ports; default 5s
	// Confirm is how long a process or port must differ, or something undeclared stand in an exact directory,
	// until it is a finding: a restart by the supervisor is no drift. Default 2s.
	Confirm time.Duration
	// Settle is how long after a change of a subject's declaration repair waits for the deployment that brings
	// it. It ends early for a subject that was seen as declared. Default 30s.
	Settle time.Duration

	RepairsPerHour int           // on this device, over all subjects; default 60
	FlapLimit      int           // repairs of one subject within FlapWindow until it is escalated; default 3
	FlapWindow     time.Duration // default 1h
	RepairTimeout  time.Duration // for one call of Repairer; default 30s
	MaxFindings    int           // in one report; default 500

	// OnEvent is called for each change of a finding, in order; in particular with EventIntent before the
	// Repairer is called. It must not block and must not call the agent.
	OnEvent func(Event)
	Logger  *slog.Logger          // default: none
	Metrics prometheus.Registerer // default: none
}

var (
	// ErrCannotRepair is returned by a Repairer for what it can never repair; the finding is escalated at once.
	ErrCannotRepair = errors.New("drift: this finding cannot be repaired from here; a person or a flow must see to it")
	// ErrConfig matches every error that says that a Config is wrong.
	ErrConfig = errors.New("drift: wrong configuration")
)

// ConfigError says which field of a Config is wrong, and how to mend it.
type ConfigError struct{ Field, Fault string }

func (e *ConfigError) Error() string { return "drift: " + e.Field + ": " + e.Fault }

// Is makes errors.Is(err, ErrConfig) true.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

func (c Config) withDefaults() (Config, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &ConfigError{"Config." + field, fmt.Sprintf(format, args...)})
	}
	if c.Device == "" {
		fault("Device", "is empty; give the device's name")
	}
	if c.Desired == nil {
		fault("Desired", "is nil; give what knows the declared state, such as drift.Fixed(state)")
	}
	if len(c.Collectors) == 0 {
		fault("Collectors", "is empty; give at least one, such as drift.Files(root)")
	}
	owner := make(map[Kind]int)
	for i, collector := range c.Collectors {
		if collector == nil {
			fault("Collectors", "number %d is nil", i)
			continue
		}
		for _, kind := range collector.Kinds() {
			if first, twice := owner[kind]; twice {
				fault("Collectors", "kind %q is looked after by number %d and by number %d; keep one", kind, first, i)
			}
			owner[kind] = i
		}
	}
	repairs := c.Mode == Repair
	if !c.Mode.valid() {
		fault("Mode", "is %q; use drift.Observe or drift.Repair", c.Mode)
	}
	for kind, mode := range c.Modes {
		if !kind.valid() {
			fault("Modes", "has the unknown kind %q; use one of %v", kind, Kinds())
		}
		if !mode.valid() {
			fault("Modes", "is %q for %q; use drift.Observe or drift.Repair", mode, kind)
		}
		repairs = repairs || mode == Repair
	}
	if repairs && c.Repairer == nil {
		fault("Repairer", "is nil, but a mode is Repair; give one, or use drift.Observe")
	}
	duration := func(field string, d *time.Duration, def time.Duration) {
		if *d < 0 {
			fault(field, "is %v; give a positive duration, or 0 for %v", *d, def)
		} else if *d == 0 {
			*d = def
		}
	}
	duration("Rescan", &c.Rescan, time.Minute)
	duration("Poll", &c.Poll, 5*time.Second)
	duration("Confirm", &c.Confirm, 2*time.Second)
	duration("Settle", &c.Settle, 30*time.Second)
	duration("FlapWindow", &c.FlapWindow, time.Hour)
	duration("RepairTimeout", &c.RepairTimeout, 30*time.Second)
	number := func(field string, n *int, def int) {
		if *n < 0 {
			fault(field, "is %d; give a positive number, or 0 for %d", *n, def)
		} else if *n == 0 {
			*n = def
		}
	}
	number("RepairsPerHour", &c.RepairsPerHour, 60)
	number("FlapLimit", &c.FlapLimit, 3)
	number("MaxFindings", &c.MaxFindings, 500)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

// Fixed is a Desired that never changes. The generation is "fixed".
func Fixed(state State) Desired { return fixed{state} }

type fixed struct{ state State }

func (f fixed) Desired(context.Context) (State, string, error) { return f.state, "fixed", nil }
func (f fixed) Changed() <-chan struct{}                       { return nil }
