package flow

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// An execution may be moved to another version of its flow while it is open. What it has come through stays as it is, outputs, undos and keys and all;
// what comes after is the new version's. So what it has come through has to be in the new version, with the same names and of the same kinds, in
// the same order, and what is under way has to be the same; everything else may differ.

// migrate moves the execution to another version, or refuses with all the reasons.
func (m *machine) migrate(in input) {
	x, to := m.x, in.program
	switch {
	case x.Target != "":
		m.refuse("execution %s is turning back; wait for its end", x.ID)
		return
	case to.Name != x.Flow:
		m.refuse("execution %s is one of flow %s, not of %s", x.ID, x.Flow, to.Name)
		return
	case to.Version == x.Version:
		m.refuse("execution %s is of version %d already", x.ID, x.Version)
		return
	}
	params, reasons := to.adopted(x)
	reasons = append(reasons, x.unlike(to)...)
	if len(reasons) > 0 {
		m.refuse("execution %s cannot go on as version %d of flow %s:\n%s", x.ID, to.Version, x.Flow, strings.Join(reasons, "\n"))
		return
	}
	stranded := x.State == Stuck && x.held == 0 // its version does not compile any more; nothing of it runs here
	m.unpark(in)
	x.next = &to.Definition
	m.p = to
	m.emit(Event{Kind: EventMigrated, Version: to.Version, Params: params, Actor: in.actor, Reason: in.reason})
	x.next = nil
	if stranded {
		m.recover()
	}
	m.survey(0)
}

// adopted are the execution's parameters as the new version takes them: those that it no longer has are dropped, new ones have their defaults.
func (d *Definition) adopted(x *Execution) (map[string]any, []string) {
	given := maps.Clone(x.Params)
	maps.DeleteFunc(given, func(name string, _ any) bool {
		return !slices.ContainsFunc(d.Params, func(p Param) bool { return p.Name == name })
	})
	params, err := d.bind(given)
	if err != nil {
		return nil, strings.Split(strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "), "\n")
	}
	return params, nil
}

// unlike says what of the execution is not in the new version as it has to be.
func (x *Execution) unlike(to *program) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !slices.Equal(x.def.Locks, to.Locks) {
		bad("its locks are %q, and would be %q: they are held from start to end", x.def.Locks, to.Locks)
	}
	for i := range x.Steps {
		s := &x.Steps[i]
		if s.State == StepWaiting {
			continue
		}
		from := &x.shape.steps[i]
		at, found := to.index[s.Name]
		if !found {
			bad("step %q is %s, and is not in it: its output and its undo would be lost", s.Name, s.State)
			continue
		}
		step, was := to.steps[at], from.step
		switch where, here := x.shape.where(i), to.where(at); {
		case was.kind() != step.kind() || was.Tool != step.Tool || was.Flow != step.Flow:
			bad("step %q is %s as %s %s, and would be %s %s", s.Name, s.State, was.kind(), was.called(), step.kind(), step.called())
		case where != here:
			bad("step %q is %s %s, and would stand %s", s.Name, s.State, where, here)
		case (was.Each == "") != (step.Each == "") || (was.Repeat == nil) != (step.Repeat == nil) || !reflect.DeepEqual(was.Output, step.Output):
			bad("step %q is %s, and its output would be another: each, repeat and output have to stay", s.Name, s.State)
		case s.State == StepRunning && !slices.Equal(was.branches(), step.branches()):
			bad("step %q is under way with the branches %v, and would have %v", s.Name, was.branches(), step.branches())
		case s.State == StepRunning && !reflect.DeepEqual(was.core(), step.core()):
			bad("step %q is under way: only its title, stage, retry, timeouts, parallel, batch, quota and on_failure may differ", s.Name)
		}
	}
	for b := range x.blocks {
		if !x.blocks[b].entered || !x.opened(b) {
			continue
		}
		passed := x.shape.blocks[b].steps[:x.blocks[b].pos]
		in := to.like(x.shape, b)
		if in < 0 {
			bad("%s of step %q is under way, and is not in it", x.shape.blocks[b].name, x.Steps[x.shape.blocks[b].owner].Name)
			continue
		}
		for i, at := range passed {
			name, there := x.Steps[at].Name, "the end"
			if i < len(to.blocks[in].steps) {
				if there = to.steps[to.blocks[in].steps[i]].Name; there == name {
					continue
				}
			}
			bad("step %q has been passed, and at its place there would be %s: what has been passed has to stay, in its order", name, there)
			break
		}
		if pos := x.blocks[b].pos; pos < len(x.shape.blocks[b].steps) {
			if at := x.shape.blocks[b].steps[pos]; x.Steps[at].State != StepWaiting {
				if pos >= len(to.blocks[in].steps) || to.steps[to.blocks[in].steps[pos]].Name != x.Steps[at].Name {
					bad("step %q is under way, and would not be the next behind those that have been passed", x.Steps[at].Name)
				}
			}
		}
	}
	return out
}

// opened reports whether the step that holds a block is under way.
func (x *Execution) opened(b int) bool {
	owner := x.shape.blocks[b].owner
	return owner < 0 || x.Steps[owner].State == StepRunning
}

// called names what a step calls.
func (s *Step) called() string { return s.Tool + s.Flow }

// branches returns the names of what the step has run side by side, sorted.
func (s *Step) branches() []string {
	out := make([]string, len(s.Branches))
	for i := range s.Branches {
		out[i] = s.Branches[i].Name
	}
	slices.Sort(out)
	return out
}

// core is a step without what it holds, and without what may differ while it is under way.
func (s Step) core() Step {
	s.Title, s.Stage, s.Then, s.Else, s.Branches, s.Handler = "", "", nil, nil, nil, nil
	s.Retry, s.Timeout, s.Total, s.Heartbeat, s.Parallel, s.Batch, s.Quota, s.OnFailure, s.Undo = Retry{}, 0, 0, 0, 0, 0, "", "", nil
	s.Switch = slices.Clone(s.Switch)
	for i := range s.Switch {
		s.Switch[i].Steps = nil
	}
	return s
}

// where says in which block a step stands.
func (l *layout) where(at int) string {
	in := l.blocks[l.steps[at].block]
	switch {
	case in.owner < 0:
		return "on its own"
	case in.handler:
		return "in the handler of step " + l.steps[in.owner].step.Name
	}
	return "in " + in.name + " of step " + l.steps[in.owner].step.Name
}

// like returns the block that stands for block b of another layout, or -1.
func (l *layout) like(other *layout, b int) int {
	old := &other.blocks[b]
	if old.owner < 0 {
		return 0
	}
	owner, found := l.index[other.steps[old.owner].step.Name]
	if !found {
		return -1
	}
	for _, in := range l.steps[owner].blocks {
		if l.blocks[in].name == old.name && l.blocks[in].handler == old.handler {
			return in
		}
	}
	return -1
}

// become folds a migration: the state that the execution has, laid out as the new version is.
func (x *Execution) become(def *Definition) {
	old, was, blocks, lists := x.shape, x.Steps, x.blocks, x.parked
	x.def, x.shape, x.Version = def, def.shape(), def.Version
	x.Steps, x.blocks = make([]StepStatus, len(x.shape.steps)), make([]blockState, len(x.shape.blocks))
	x.last, x.clock, x.parked = -1, nil, [waitPeople + 1]parked{}
	for i := range x.Steps {
		x.Steps[i] = x.fresh(i, 0)
		at, found := old.index[x.Steps[i].Name]
		if !found {
			continue
		}
		s, stage := was[at], x.Steps[i].Stage
		if s.State == StepWaiting {
			x.Steps[i].Round, x.Steps[i].Chosen = s.Round, s.Chosen
			continue
		}
		s.at, s.Stage, s.open, s.parked, s.items = i, stage, 0, 0, nil
		x.Steps[i], x.last = s, i
		x.retime(&x.Steps[i])
	}
	for b := range blocks {
		if in := x.shape.like(old, b); in >= 0 {
			x.blocks[in] = blocks[b]
		}
	}
	for b, state := range x.blocks {
		if owner := x.shape.blocks[b].owner; owner >= 0 && state.entered && state.pos < len(x.shape.blocks[b].steps) && x.Steps[owner].State == StepRunning {
			x.Steps[owner].open++
		}
	}
	for kind, list := range lists {
		for _, at := range list {
			x.parked[kind].add(&x.Steps[x.shape.index[was[at].Name]])
		}
	}
	x.heldFrom = 0
	x.noteAll()
}

// retime puts the times of a step's tasks into the clock.
func (x *Execution) retime(s *StepStatus) {
	for j := range s.Tasks {
		if at := s.Tasks[j].RetryAt; !at.IsZero() {
			x.clock.push(dueTime{at, s.at, j, false})
		}
	}
}
