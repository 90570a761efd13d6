package drift

import (
	"context"
	"errors"
)

// Collector observes one part of a device. It reads, and never writes.
type Collector interface {
	// Kinds says what it looks after. It does not change.
	Kinds() []Kind
	// Collect observes what want declares, and no more than is needed for comparing with it. With only set, it
	// may confine itself to those subjects. The state that it returns carries one Coverage. An error means
	// that nothing was observed; it is reported as a blind coverage.
	Collect(ctx context.Context, want State, only []string) (State, error)
}

// Watcher is a Collector that notices by itself when what it looks after may have changed.
type Watcher interface {
	Collector
	// Watch calls changed whenever subjects of the state last given to Collect may have changed, until ctx
	// ends; then it returns nil. changed does not block. An error means that nothing more will be noticed;
	// the agent goes on with its rescans, says so in its coverage, and tries again later.
	Watch(ctx context.Context, changed func(Touched)) error
}

// Touched says what may have changed.
type Touched struct {
	Subjects []string
	All      bool   // anything may have: events were lost
	Why      string // with All: why
}

// Collect observes once what desired declares, with all the collectors, and returns it as one live state: for
// comparing without an Agent.
func Collect(ctx context.Context, desired State, collectors ...Collector) (State, error) {
	var live State
	var faults []error
	for _, c := range collectors {
		part, err := c.Collect(ctx, desired, nil)
		if err != nil {
			faults = append(faults, err)
			part = State{Coverage: []Coverage{{Collector: "?", Kinds: c.Kinds(), Blind: true}}}
		}
		live.merge(part)
	}
	return live, errors.Join(faults...)
}

// merge adds part, observed by another collector, to s.
func (s *State) merge(part State) {
	if s.Files == nil {
		s.Files = part.Files
	} else {
		for name, f := range part.Files {
			s.Files[name] = f
		}
	}
	s.Processes = append(s.Processes, part.Processes...)
	s.Ports = append(s.Ports, part.Ports...)
	s.Coverage = append(s.Coverage, part.Coverage...)
}
