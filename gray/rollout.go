package gray

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Member is one new device's instance of the service.
type Member struct {
	ID    string `json:"id"`    // as Weights and Outcomes name it, such as its address
	Cores int    `json:"cores"` // of its device; default 1
}

// State is where a rollout stands.
type State string

// The states of a rollout. Rollback is reachable from each of them.
//
//	          head of the service's queue      gate green after
//	          +--------+                 +---------+  the last soak   +------+
//	Start --> | queued | --------------> | running | ---------------> | done |
//	          +--------+                 +---------+                  +------+
//	              |         person,       |  ^   |                       |
//	              |         MaxStage      v  |   |                       |
//	              |                      +--------+                      |
//	              |                      | paused |                      |
//	              |                      +--------+                      |
//	              |   person              |   | gate red, person         | person
//	              v                       v   v                          v
//	          +----------+   all new members read back 0    +---------+
//	          | aborting | -------------------------------> | aborted |
//	          +----------+                                  +---------+
const (
	Queued   State = "queued"
	Running  State = "running"
	Paused   State = "paused"
	Done     State = "done"
	Aborting State = "aborting"
	Aborted  State = "aborted"
)

// Final says that nothing more happens by itself.
func (s State) Final() bool { return s == Done || s == Aborted }

// Rollout is new members of a service on their way to full weight. The caller of Start fills the first part;
// Status is the controller's.
type Rollout struct {
	ID       string   `json:"id"` // default: a random one. A second Start with the same ID returns the first rollout
	Service  string   `json:"service"`
	Module   string   `json:"module,omitempty"` // shown only
	New      []Member `json:"new"`
	MinCores int      `json:"min_cores"`       // of the module's smallest device type; default: the least of New
	Policy   Policy   `json:"policy"`          // zero: Default()
	Actor    string   `json:"actor,omitempty"` // who starts it, and why
	Because  string   `json:"because,omitempty"`

	Status Status `json:"status"`
}

// Status is how far a rollout has come.
type Status struct {
	State      State          `json:"state"`
	Stage      int            `json:"stage"`   // index into Policy.Stages
	Percent    int            `json:"percent"` // wanted of each new member; 0 before the first stage and after an abort
	Created    time.Time      `json:"created"`
	Changed    time.Time      `json:"changed"`              // of the last transition
	StageSince time.Time      `json:"stage_since,omitzero"` // when the stage was entered
	InForce    time.Time      `json:"in_force,omitzero"`    // since when the wanted shares read back without a break; zero: not yet
	WindowFrom time.Time      `json:"window_from,omitzero"` // where the stage's evidence begins
	GapSince   time.Time      `json:"gap_since,omitzero"`   // since when the evidence has had a hole; zero: none
	Reason     Reason         `json:"reason"`               // of the last transition
	Cause      Reason         `json:"cause,omitzero"`       // why it was rolled back
	Verdict    Verdict        `json:"verdict"`              // of the last look; numbers may be 5 s old
	Events     int64          `json:"events"`               // transitions so far
	Lost       []string       `json:"lost,omitempty"`       // new members that left the service; Policy.LostAfter
	Actual     map[string]int `json:"actual,omitempty"`     // shares of the new members as last read back

	// Waived says that a person promoted the last stage before its shares were in force: it is done once they are.
	Waived bool `json:"waived,omitempty"`

	// Held says that this rollout holds its service: no other one of the service starts until it is final.
	Held bool `json:"held,omitempty"`

	// Missing says since when members of New have not been among the service's.
	Missing map[string]time.Time `json:"missing,omitempty"`
}

// Wanted is the share that each new member should have now; a lost one, should it come back, 0.
func (r Rollout) Wanted() map[string]int {
	wanted := make(map[string]int, len(r.New))
	for _, m := range r.New {
		wanted[m.ID] = r.Status.Percent
		if r.Status.State == Aborting || r.Status.State == Aborted || slices.Contains(r.Status.Lost, m.ID) {
			wanted[m.ID] = 0
		}
	}
	return wanted
}

// members are those of New that are not lost.
func (r Rollout) members() []Member {
	if len(r.Status.Lost) == 0 {
		return r.New
	}
	return slices.DeleteFunc(slices.Clone(r.New), func(m Member) bool { return slices.Contains(r.Status.Lost, m.ID) })
}

// clone keeps the step function from writing into its argument.
func (r Rollout) clone() Rollout {
	r.Status.Lost = slices.Clone(r.Status.Lost)
	r.Status.Missing = maps.Clone(r.Status.Missing)
	return r
}

// filled returns r with defaults in its zero fields.
func (r Rollout) filled() Rollout {
	r.Policy = r.Policy.filled()
	r.New = slices.Clone(r.New)
	least := 0
	for i := range r.New {
		set(&r.New[i].Cores, 1)
		if least == 0 || r.New[i].Cores < least {
			least = r.New[i].Cores
		}
	}
	set(&r.MinCores, least)
	return r
}

// faults lists everything that is wrong with a filled rollout.
func (r Rollout) faults() error {
	var errs []error
	if r.Service == "" {
		errs = append(errs, errors.New("Rollout.Service is empty: name the service whose weights change"))
	}
	if len(r.New) == 0 {
		errs = append(errs, errors.New("Rollout.New is empty: name at least one new member"))
	}
	seen := make(map[string]bool, len(r.New))
	for i, m := range r.New {
		switch {
		case m.ID == "":
			errs = append(errs, fmt.Errorf("Rollout.New[%d].ID is empty: name the member as Weights does", i))
		case seen[m.ID]:
			errs = append(errs, fmt.Errorf("Rollout.New[%d].ID %q stands twice: name each member once", i, m.ID))
		}
		if m.Cores < 0 {
			errs = append(errs, fmt.Errorf("Rollout.New[%d].Cores is %d: give the cores of its device", i, m.Cores))
		}
		seen[m.ID] = true
	}
	if r.MinCores < 0 {
		errs = append(errs, fmt.Errorf("Rollout.MinCores is %d: give the cores of the module's smallest device type", r.MinCores))
	}
	if err := r.Policy.faults(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Event is one transition of a rollout, kept for good beside it.
type Event struct {
	Rollout string    `json:"rollout"`
	Service string    `json:"service"`
	Seq     int64     `json:"seq"` // 1, 2, 3, ... within the rollout
	At      time.Time `json:"at"`
	From    State     `json:"from,omitempty"`
	To      State     `json:"to"`
	Stage   int       `json:"stage"`
	Percent int       `json:"percent"`
	Reason  Reason    `json:"reason"`
}
