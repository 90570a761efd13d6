package flow

import "fmt"

// layout is the shape of a definition: all of its steps in document order, and the blocks that hold them. A step that holds others
// comes before them. Since a step runs at most once, a step's place in the list is its identity.
type layout struct {
	steps  []place
	blocks []block        // the first is the flow itself
	index  map[string]int // of steps by name
}

// place is where a step stands.
type place struct {
	step   *Step
	path   string // in the document: steps[2].then[0]
	parent int    // the step that holds it; -1 for none
	block  int    // the block in which it is
	pos    int    // its position there
	end    int    // behind the last step that it holds
	blocks []int  // those that it holds: its cases and else, branches, and last its handler
}

// block is a list of steps that run one after another.
type block struct {
	owner int    // the step that holds it; -1 for the flow
	name  string // then, else, case 0, a branch's name, handler
	steps []int
	// handler: it runs if the owner has failed, not otherwise.
	handler bool
}

func newLayout(d *Definition) *layout {
	l := &layout{index: map[string]int{}}
	l.add(d.Steps, "steps", "", -1)
	return l
}

// add lays a block out and returns its index.
func (l *layout) add(steps []Step, path, name string, owner int) int {
	index := len(l.blocks)
	l.blocks = append(l.blocks, block{owner: owner, name: name, steps: make([]int, 0, len(steps))})
	for i := range steps {
		at := l.step(&steps[i], fmt.Sprintf("%s[%d]", path, i), index) // which may move l.blocks
		l.blocks[index].steps = append(l.blocks[index].steps, at)
	}
	return index
}

func (l *layout) step(s *Step, path string, in int) int {
	at := len(l.steps)
	l.steps = append(l.steps, place{step: s, path: path, parent: l.blocks[in].owner, block: in, pos: len(l.blocks[in].steps)})
	l.index[s.Name] = at
	var held []int
	hold := func(steps []Step, field, name string) {
		held = append(held, l.add(steps, path+"."+field, name, at))
	}
	if s.If != "" {
		hold(s.Then, "then", "then")
	}
	for i := range s.Switch {
		hold(s.Switch[i].Steps, fmt.Sprintf("switch[%d].steps", i), fmt.Sprintf("case %d", i))
	}
	if len(s.Else) > 0 {
		hold(s.Else, "else", "else")
	}
	for i := range s.Branches {
		hold(s.Branches[i].Steps, "branches."+s.Branches[i].Name, s.Branches[i].Name)
	}
	if len(s.Handler) > 0 {
		hold(s.Handler, "on_failure.steps", "handler")
		l.blocks[held[len(held)-1]].handler = true
	}
	l.steps[at].blocks, l.steps[at].end = held, len(l.steps)
	return at
}

// handled returns the step whose failure a step handles, or helps to; -1 for none.
func (l *layout) handled(in place) int {
	for !l.blocks[in.block].handler {
		if in.parent < 0 {
			return -1
		}
		in = l.steps[in.parent]
	}
	return in.parent
}
