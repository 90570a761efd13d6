package flow

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Limits bounds what an engine runs at a time, beside Config.Concurrency. The zero value bounds the executions that are open, and nothing else.
//
// An attempt that may not start waits: its execution says for what and since when, and a crash meanwhile finds it waiting, not in
// doubt. Among those that wait for the same thing, greater priorities go first, and executions of one priority take turns, however
// many attempts each of them has. Every sixteenth turn is that of the priority that was served longest ago, so that none waits for ever: an
// attempt behind E executions of its own priority starts after at most 16 x 11 x E others. Undos and probes go before all.
//
// Limits hold for one engine; several engines on one store have each their own. What must hold for all of them is a lock.
type Limits struct {
	// Tools bounds single tools, by name.
	Tools map[string]ToolLimit
	// PerDevice bounds the attempts that run on one device. Default: none.
	PerDevice int
	// PerModule bounds the attempts of executions with the same value of the parameter "module". Default: none.
	PerModule int
	// Open bounds the executions that have not ended and are in memory: those that only wait for a time, a signal or a person are not. A start beyond it is a *BusyError; sub-flows, and starts with a key that is
	// known, are not refused. Default 100,000; each takes some kilobytes of memory.
	Open int
}

// ToolLimit bounds one tool.
type ToolLimit struct {
	// Concurrency bounds its attempts that run at a time. Default: none.
	Concurrency int
	// Rate bounds the attempts that start in a second; 0.1 is one in ten seconds. Default: none.
	Rate float64
	// Burst is how many may start at once after a pause. Default 1.
	Burst int
}

const defaultOpen = 100_000

// check returns what is wrong with the limits.
func (l *Limits) check() (faults []error) {
	bad := func(field string, value any) {
		faults = append(faults, fmt.Errorf("flow: Config.Limits.%s is %v: want a positive number, or 0 for the default", field, value))
	}
	for _, field := range []struct {
		name  string
		value int
	}{{"PerDevice", l.PerDevice}, {"PerModule", l.PerModule}, {"Open", l.Open}} {
		if field.value < 0 {
			bad(field.name, field.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Tools)) {
		limit := l.Tools[name]
		if limit.Concurrency < 0 || limit.Burst < 0 {
			bad(fmt.Sprintf("Tools[%q]", name), fmt.Sprintf("Concurrency %d, Burst %d", limit.Concurrency, limit.Burst))
		}
		if !(limit.Rate >= 0 && limit.Rate <= 1e6) {
			bad(fmt.Sprintf("Tools[%q].Rate", name), limit.Rate)
		}
	}
	return faults
}

// BusyError refuses a start; nothing was stored.
type BusyError struct {
	Open  int           // executions that are open
	After time.Duration // when to try again, by the rate at which executions end
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%v: %d; try again in %s", ErrBusy, e.Open, e.After)
}

// Is makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// pressure refuses starts when too many executions are open, and says when to come back. It is not safe for concurrent use.
type pressure struct {
	bound   int
	ended   time.Time     // when the last one did
	between time.Duration // two ends, smoothed
}

// refuse returns why one more may not be open, or nil.
func (p *pressure) refuse(open int) *BusyError {
	if open < p.bound {
		return nil
	}
	after := time.Duration(open-p.bound+1) * p.between
	return &BusyError{Open: open, After: min(max(after, 100*time.Millisecond), time.Minute).Round(time.Millisecond)}
}

// left notes that one has ended.
func (p *pressure) left(at time.Time) {
	if !p.ended.IsZero() {
		p.between += (max(at.Sub(p.ended), 0) - p.between) / 8
	}
	p.ended = at
}
