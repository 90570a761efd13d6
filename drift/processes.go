package drift

import (
	"context"
	"errors"
	"time"
)

// ProcessLister knows the processes of a device: Proc reads them from /proc, a supervisor may know its own by name.
type ProcessLister interface {
	Processes(ctx context.Context) (ProcessList, error)
}

// ProcessList is what a ProcessLister sees, and what it does not.
type ProcessList struct {
	Processes []Process
	Via       string // such as "procfs"
	Gaps      []Gap
}

// ProcessCollector observes processes. Make it with Processes. It is safe for concurrent use.
type ProcessCollector struct{ lister ProcessLister }

// Processes returns a collector for the processes that lister knows of.
func Processes(lister ProcessLister) *ProcessCollector { return &ProcessCollector{lister} }

// Kinds implements Collector.
func (c *ProcessCollector) Kinds() []Kind { return []Kind{KindProcess} }

// Collect implements Collector; it always observes all.
func (c *ProcessCollector) Collect(ctx context.Context, _ State, _ []string) (State, error) {
	if c.lister == nil {
		return State{}, errors.New("drift: Processes was given no lister; use drift.Proc(root) or the supervisor's")
	}
	list, err := c.lister.Processes(ctx)
	if err != nil {
		return State{}, err
	}
	cov := Coverage{Collector: "processes", Kinds: c.Kinds(), Via: list.Via, At: time.Now()}
	for _, gap := range list.Gaps {
		cov.gap(gap)
	}
	cov.gap(Gap{What: "processes that live shorter than the time between two looks", Why: "they are polled"})
	return State{Processes: list.Processes, Coverage: []Coverage{cov}}, nil
}
