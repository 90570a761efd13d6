package drift

import (
	"context"
	"errors"
	"slices"
	"sync"
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

// Named returns a lister of what list sees, with the names that names gives to process ids: a supervisor's, say. An
// error of names is a gap, and the processes go without.
func Named(list ProcessLister, names func(context.Context) (map[int]string, error)) ProcessLister {
	return named{list, names}
}

type named struct {
	list  ProcessLister
	names func(context.Context) (map[int]string, error)
}

// Processes implements ProcessLister.
func (n named) Processes(ctx context.Context) (ProcessList, error) {
	// Names first: a process that starts in between is then seen without one, rather than missed.
	names, fault := n.names(ctx)
	list, err := n.list.Processes(ctx)
	if err != nil {
		return ProcessList{}, err
	}
	if fault != nil {
		list.Gaps = append(slices.Clip(list.Gaps), Gap{What: "the names of processes", Why: fault.Error()})
	}
	list.Processes = slices.Clone(list.Processes)
	for i, p := range list.Processes {
		if name, ok := names[p.PID]; ok {
			list.Processes[i].Name = name
		}
	}
	return list, nil
}

// ProcessCollector observes processes. Make it with Processes. It is safe for concurrent use.
//
// On Linux it notices by pidfd, at once, that a process that it has seen ends; starts are found by looking.
type ProcessCollector struct {
	lister ProcessLister

	mu      sync.Mutex
	pids    []int  // guarded by mu; that were seen last
	watched func() // guarded by mu; tells Watch that pids has changed; nil while it does not run
}

// Processes returns a collector for the processes that lister knows of.
func Processes(lister ProcessLister) *ProcessCollector { return &ProcessCollector{lister: lister} }

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
	if c.remember(list.Processes) {
		cov.Via += "+pidfd"
		cov.Events = true
	}
	cov.gap(Gap{What: "processes that start unasked, until the next look, and those that end before it", Why: "starts are polled"})
	return State{Processes: list.Processes, Coverage: []Coverage{cov}}, nil
}

// remember has the processes' ends watched for, and says whether anybody does.
func (c *ProcessCollector) remember(list []Process) bool {
	pids := make([]int, 0, len(list))
	for _, p := range list {
		if p.PID > 0 {
			pids = append(pids, p.PID)
		}
	}
	slices.Sort(pids)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched == nil {
		c.pids = pids
		return false
	}
	if !slices.Equal(c.pids, pids) {
		c.pids = pids
		c.watched()
	}
	return true
}
