package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config of an exploration.
type Config struct {
	Nodes    []string      // that faults may hit; required
	Seeds    int           // how many runs; default 200
	First    uint64        // the first seed; default 1
	Duration time.Duration // of a run, in virtual time; default 2 min
	Faults   int           // at most so many in a run; default 8
	Kinds    []Kind        // of faults; default all; one that is named twice is twice as likely
	Within   time.Duration // faults lie in the run's first part, as long as this; default three quarters. Say it of what is over long before the run
}

func (c Config) defaults() Config {
	if c.Seeds == 0 {
		c.Seeds = 200
	}
	if c.First == 0 {
		c.First = 1
	}
	if c.Duration == 0 {
		c.Duration = 2 * time.Minute
	}
	if c.Within == 0 {
		c.Within = c.Duration * 3 / 4
	}
	if c.Faults == 0 {
		c.Faults = 8
	}
	if len(c.Kinds) == 0 {
		c.Kinds = []Kind{Crash, Cut, Delay, Duplicate, Reorder, ClockJump}
	}
	return c
}

// Scenario builds what is simulated. It returns what is to hold in the end; nil: nothing more than what w.Fail says.
type Scenario func(w *World) (check func() error)

// Failure is a run in which something did not hold.
type Failure struct {
	Plan  Plan // shrunken: without any of its faults the run succeeds
	Runs  int  // seeds tried before, this one included
	Err   error
	Trace []string // the last lines
}

// Error tells all that is needed to see it again.
func (f *Failure) Error() string {
	return fmt.Sprintf("%v\nafter %d seeds; %v\nlast steps:\n  %s", f.Err, f.Runs, f.Plan, strings.Join(f.Trace, "\n  "))
}

// Unwrap returns what did not hold.
func (f *Failure) Unwrap() error { return f.Err }

// Explore runs the scenario for one seed after another, and returns the first failure with its plan shrunken, or nil.
func Explore(config Config, scenario Scenario) *Failure {
	config = config.defaults()
	for i := range config.Seeds {
		plan := NewPlan(config, config.First+uint64(i))
		if failure := Play(config, plan, scenario); failure != nil {
			failure = shrink(config, failure, scenario)
			failure.Runs = i + 1
			return failure
		}
	}
	return nil
}

// Play runs the scenario under one plan.
func Play(config Config, plan Plan, scenario Scenario) *Failure {
	w := newWorld(config.defaults(), plan)
	check := scenario(w)
	w.run()
	if w.failed == nil && check != nil {
		w.Fail(check())
	}
	if w.failed == nil {
		return nil
	}
	return &Failure{Plan: plan, Runs: 1, Err: w.failed, Trace: w.trace[max(0, len(w.trace)-keepTrace):]}
}

// shrink takes out faults, the last first, for as long as the run still fails.
func shrink(config Config, failure *Failure, scenario Scenario) *Failure {
	for again := true; again; {
		again = false
		for i := len(failure.Plan.Faults) - 1; i >= 0; i-- {
			less := Plan{Seed: failure.Plan.Seed, Faults: slices.Delete(slices.Clone(failure.Plan.Faults), i, i+1)}
			if smaller := Play(config, less, scenario); smaller != nil {
				failure, again = smaller, true
			}
		}
	}
	return failure
}
