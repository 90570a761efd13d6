package gray

import (
	"errors"
	"fmt"
	"time"
)

// Policy says how a rollout proceeds. It is stored with the rollout: later changes of a default do not touch
// rollouts under way. Start from Deck or Default and change fields; a zero field means the value that Deck
// documents for it.
type Policy struct {
	Name string `json:"name"` // shown, never interpreted

	// Stages are the percentages of full weight, ascending, the last one 100. Default 10, 50, 100.
	Stages []int `json:"stages"`

	// Margin is how far the success rate of the new devices may lie below the average of the old, as a
	// fraction: 0.05 is 5 percentage points, the default. At exactly that distance the gate is red.
	Margin float64 `json:"margin"`

	// MinRequests are needed per MinCores of expanded capacity before a stage is judged. Default 200.
	MinRequests int64 `json:"min_requests"`

	// MinReports about one of the new devices are needed before a stage is judged. Default 2.
	MinReports int64 `json:"min_reports"`

	// Floor is the success rate that the new devices must exceed when the service has no old devices (its first
	// expansion), as a fraction. Default 1 - Margin: as if old devices had never failed.
	Floor float64 `json:"floor"`

	// Soak is the least time for which a stage's shares are in force before the next may start. Default 1 min.
	Soak time.Duration `json:"soak"`

	// MaxStage is the longest time for a stage to turn green; after it the rollout pauses for a person, neither
	// passed nor failed. Default 4 h.
	MaxStage time.Duration `json:"max_stage"`

	// GapReset is how long a hole in the outcomes is waited for; then the evidence of the stage counts anew from
	// behind the hole, and so does its soak. Default 30 s.
	GapReset time.Duration `json:"gap_reset"`

	// LostAfter is how long a new member may be missing from the service before the rollout goes on without it.
	// Default 30 s.
	LostAfter time.Duration `json:"lost_after"`

	// Curtail fails a stage before it has its minimum of requests when even nothing but successes could no longer
	// make it pass at the minimum. Off in Deck, on in Default.
	Curtail bool `json:"curtail,omitempty"`
}

// Deck is the rule of the talk that Zhiyun follows: 10 %, 50 %, 100 %; at each, the success rate of the new
// devices must be greater than the average of the old devices in the same window minus 5 percentage points,
// judged once the new devices together have served (expanded cores / cores of the module's smallest device
// type) * 200 requests in that stage, and at least two reports have come in. The average is taken over
// requests: all successes of the old devices by all their requests. Times (soak, limits) are ours: the talk
// names none.
func Deck() Policy {
	return Policy{
		Name:        "deck",
		Stages:      []int{10, 50, 100},
		Margin:      0.05,
		MinRequests: 200,
		MinReports:  2,
		Floor:       0.95,
		Soak:        time.Minute,
		MaxStage:    4 * time.Hour,
		GapReset:    30 * time.Second,
		LostAfter:   30 * time.Second,
	}
}

// Default is Deck with Curtail: devices that fail outright are taken back after a few failures, also when the
// callers' own health checks keep them from ever reaching the minimum of requests.
func Default() Policy {
	p := Deck()
	p.Name = "default"
	p.Curtail = true
	return p
}

// filled returns p with defaults in its zero fields.
func (p Policy) filled() Policy {
	if p.Name == "" && p.Stages == nil && p.Margin == 0 && p.MinRequests == 0 {
		p.Name, p.Curtail = "default", true
	}
	d := Deck()
	if len(p.Stages) == 0 {
		p.Stages = d.Stages
	}
	set(&p.Margin, d.Margin)
	set(&p.MinRequests, d.MinRequests)
	set(&p.MinReports, d.MinReports)
	set(&p.Floor, 1-p.Margin)
	set(&p.Soak, d.Soak)
	set(&p.MaxStage, d.MaxStage)
	set(&p.GapReset, d.GapReset)
	set(&p.LostAfter, d.LostAfter)
	return p
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// faults lists everything that is wrong with a filled policy.
func (p Policy) faults() error {
	var errs []error
	last := 0
	for i, percent := range p.Stages {
		if percent <= last || percent > 100 {
			errs = append(errs, fmt.Errorf("Policy.Stages[%d] is %d: stages ascend within 1..100", i, percent))
		}
		last = percent
	}
	if last != 100 {
		errs = append(errs, fmt.Errorf("Policy.Stages ends at %d: the last stage is 100", last))
	}
	if !(p.Margin > 0 && p.Margin < 1) {
		errs = append(errs, fmt.Errorf("Policy.Margin is %g: give a fraction between 0 and 1, such as 0.05", p.Margin))
	}
	if !(p.Floor > 0 && p.Floor < 1) {
		errs = append(errs, fmt.Errorf("Policy.Floor is %g: give a fraction between 0 and 1, such as 0.95", p.Floor))
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MinRequests", p.MinRequests}, {"MinReports", p.MinReports}, {"Soak", int64(p.Soak)},
		{"MaxStage", int64(p.MaxStage)}, {"GapReset", int64(p.GapReset)}, {"LostAfter", int64(p.LostAfter)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("Policy.%s is negative: give a positive value, or 0 for the default", f.name))
		}
	}
	if p.MaxStage > 0 && p.Soak >= p.MaxStage {
		errs = append(errs, fmt.Errorf("Policy.Soak %v is not below MaxStage %v: no stage could end", p.Soak, p.MaxStage))
	}
	return errors.Join(errs...)
}
