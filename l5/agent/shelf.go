package agent

import (
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
)

// shelf is the device's copy of what its programs call. It holds no instances but those that the route table does not have
// yet: all others are read from the table of the agent's own user, which is mapped, when somebody asks. It is the store of the
// link. Its methods are safe for concurrent use and call nobody.
//
//	         Put                 the table was written
//	(none) -------> in memory -------------------------> in the table
//	                    ^               Put                  |   |
//	                    +------------------------------------+   | it cannot be read
//	(none) <-----------------------------------------------------+
type shelf struct {
	logger       *slog.Logger
	compartments [table.Segments]compartment

	mu   sync.Mutex
	lost []string // guarded by mu; what could not be read and is to be asked for anew
}

// compartment is the services of one segment.
type compartment struct {
	mu     sync.Mutex
	states map[string]state // guarded by mu; by service
	file   *table.Mapped    // guarded by mu; nil: there is none
}

// state is where a service stands.
type state struct {
	epoch    string
	revision int64
	view     *view.View // nil: the table has it
}

func newShelf(logger *slog.Logger) *shelf {
	s := &shelf{logger: logger}
	for i := range s.compartments {
		s.compartments[i].states = make(map[string]state)
	}
	return s
}

func (s *shelf) compartment(service string) *compartment {
	return &s.compartments[table.SegmentOf(service)]
}

// At implements link.Store.
func (s *shelf) At(service string) (epoch string, revision int64, held bool) {
	c := s.compartment(service)
	c.mu.Lock()
	defer c.mu.Unlock()
	have, held := c.states[service]
	return have.epoch, have.revision, held
}

// View implements link.Store.
func (s *shelf) View(service string) (view.View, bool) {
	c := s.compartment(service)
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.read(c, service)
}

// read returns the state of a service. Callers hold c's mu.
func (s *shelf) read(c *compartment, service string) (view.View, bool) {
	have, held := c.states[service]
	if !held {
		return view.View{}, false
	}
	if have.view != nil {
		return *have.view, true
	}
	v, err := c.file.View(service)
	if err != nil {
		s.logger.Error("l5/agent: a service's state cannot be read from the route table; asking for it anew", "service", service, "error", err)
		delete(c.states, service)
		s.mu.Lock()
		s.lost = append(s.lost, service)
		s.mu.Unlock()
		return view.View{}, false
	}
	return v, true
}

// Put implements link.Store.
func (s *shelf) Put(v view.View) {
	c := s.compartment(v.Service)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[v.Service] = state{v.Epoch, v.Revision, &v}
}

// Drop implements link.Store.
func (s *shelf) Drop(service string) {
	c := s.compartment(service)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.states, service)
}

// views returns all states of a segment.
func (s *shelf) views(segment int) []view.View {
	c := &s.compartments[segment]
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]view.View, 0, len(c.states))
	for service := range c.states {
		if v, ok := s.read(c, service); ok {
			out = append(out, v)
		}
	}
	return out
}

// load takes what a segment's file holds for its services, unless something newer is known, and returns those with
// somebody who may call them, without their instances.
func (s *shelf) load(folder string, segment int) (entries []table.Entry, err error) {
	file, err := table.Open(folder, segment)
	if err != nil {
		return nil, err
	}
	c := &s.compartments[segment]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.file = file
	epoch := ""
	return entries, file.Each(func(e table.Entry) {
		if len(e.Callers) == 0 {
			return // nobody asks for it any more
		}
		if e.View.Epoch != epoch {
			epoch = e.View.Epoch
		}
		if have, held := c.states[e.View.Service]; !held || have.epoch == e.View.Epoch && have.revision < e.View.Revision {
			c.states[e.View.Service] = state{epoch, e.View.Revision, nil}
		}
		entries = append(entries, e)
	})
}

// written takes over a segment's file, which was just written with views: what it holds leaves memory.
func (s *shelf) written(folder string, segment int, views []view.View) error {
	var file *table.Mapped
	if len(views) > 0 {
		var err error
		if file, err = table.Open(folder, segment); err != nil {
			return err // what is mapped stays so
		}
	}
	c := &s.compartments[segment]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		c.file.Close()
	}
	c.file = file
	for _, v := range views {
		if have, held := c.states[v.Service]; held && have.epoch == v.Epoch && have.revision == v.Revision {
			c.states[v.Service] = state{have.epoch, have.revision, nil}
		}
	}
	return nil
}

// takeLost returns what could not be read since the last call.
func (s *shelf) takeLost() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := slices.Compact(slices.Sorted(slices.Values(s.lost)))
	s.lost = nil
	return lost
}

// close ends the mappings; what they held is not known any more.
func (s *shelf) close() {
	for i := range s.compartments {
		c := &s.compartments[i]
		c.mu.Lock()
		if c.file != nil {
			c.file.Close()
			c.file = nil
			for service, have := range c.states {
				if have.view == nil {
					delete(c.states, service)
				}
			}
		}
		c.mu.Unlock()
	}
}

// own is the user whose table is the device's copy.
func own() int { return os.Geteuid() }
