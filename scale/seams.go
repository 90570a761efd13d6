package scale

import (
	"context"
	"time"
)

// Modules says what there is to scale. Implementations are safe for concurrent use.
type Modules interface {
	// Modules returns all modules with the devices that they have now. The Controller fills the fields on what
	// was done before, and adds to Pending and Leaving the devices of its own open orders.
	Modules(ctx context.Context) ([]Module, error)
}

// Metrics is where load is recorded. Implementations are safe for concurrent use.
type Metrics interface {
	// Load returns the module's load within [from, to), ascending, in buckets of one length. A bucket that is
	// unknown or not over yet is left out or not Valid; it is never zero.
	Load(ctx context.Context, module string, from, to time.Time) ([]Sample, error)
}

// Candidates knows which devices are free. Implementations are safe for concurrent use.
type Candidates interface {
	Idle(ctx context.Context) ([]Candidate, error)
}

// Launcher carries out orders, as by running a flow. Implementations are safe for concurrent use.
type Launcher interface {
	// Launch begins an order and returns the ID of what was begun. A second Launch with the same Key begins
	// nothing and returns the same ID: the Controller calls it again when it cannot know whether the first call
	// succeeded.
	Launch(ctx context.Context, o Order) (id string, err error)

	// State says how far what Launch returned has come.
	State(ctx context.Context, id string) (Progress, error)
}

// Progress of an order.
type Progress string

const (
	Planned  Progress = "planned" // stored, not known to be launched
	Underway Progress = "running"
	Done     Progress = "done"
	Failed   Progress = "failed" // and nothing of it remains
)

// Order is one expansion or contraction.
type Order struct {
	Key       string    `json:"key"` // unique; the same for every attempt to launch it
	Module    string    `json:"module"`
	Direction Direction `json:"direction"`
	Devices   []Device  `json:"devices"` // those that come or leave
	Count     int       `json:"count"`   // of Devices
	Reason    Reason    `json:"reason"`
	Actor     string    `json:"actor,omitempty"` // empty: the decider

	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero"`
	State   Progress  `json:"state"`
	ID      string    `json:"id,omitempty"`    // as Launch returned it
	Error   string    `json:"error,omitempty"` // of the last attempt to launch
}

// Names are the names of the order's devices.
func (o Order) Names() []string {
	out := make([]string, len(o.Devices))
	for i, d := range o.Devices {
		out[i] = d.Name
	}
	return out
}
