package supervise

import (
	"context"
	"fmt"
)

// mostAncestors bounds how far Of looks.
const mostAncestors = 32

// Of says which spec a process of this host belongs to: the process itself, or the nearest of its ancestors, was started by
// this supervisor. A process cannot choose its ancestors; it loses them when they end before it. A process that nobody here
// has started is ErrUnknown. It waits for Run to have adopted what lives.
func (s *Supervisor) Of(ctx context.Context, pid int) (Spec, error) {
	if err := s.await(ctx); err != nil {
		return Spec{}, err
	}
	for range mostAncestors {
		if spec, ok := s.runs(pid); ok {
			return spec, nil
		}
		if pid <= 1 {
			break
		}
		above, err := parent(pid)
		if err != nil {
			break // it is gone: nobody speaks any more
		}
		pid = above
	}
	return Spec{}, fmt.Errorf("%w: no process that runs here is, or has started, that one", ErrUnknown)
}

// runs returns the spec of the instance that runs as pid now, and not of one that has ended and left its number.
func (s *Supervisor) runs(pid int) (Spec, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.units {
		for _, i := range u.instances {
			if i.pid != pid || i.pid == 0 {
				continue
			}
			if start, err := StartTime(pid); err == nil && (i.start == 0 || start == i.start) {
				return u.spec.normal(), true
			}
		}
	}
	return Spec{}, false
}
