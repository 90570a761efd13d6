package flow

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// holds reports whether the step is one that holds others: if, switch, branches.
func (p *stepPlan) holds() bool { return p.If != "" || len(p.Switch) > 0 || len(p.Branches) > 0 }

// enter begins what a step holds: all of its branches, or the way that its conditions choose. It reports whether the step ended with that.
func (m *machine) enter(s *StepStatus, plan *stepPlan) bool {
	way := s.Chosen
	if way == "" && len(plan.Branches) == 0 {
		var err error
		if way, err = m.choose(plan); err != nil {
			// Which way is right is for a person to say: a guess, or to undo everything for want of one, would be worse.
			m.emit(Event{Kind: EventStepHeld, Step: s.Name, Error: failure(CodeExpression, "%v", err)})
			return false
		}
		if way == "" {
			m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: plan.neither()})
			return true
		}
	}
	if way == "else" && len(plan.Else) == 0 {
		m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: "a person has chosen that nothing of it runs"})
		return true
	}
	if m.planted == "enter twice" && way != "" {
		way = ""
	}
	m.emit(Event{Kind: EventStepEntered, Step: s.Name, Case: way})
	m.inwards(s)
	return false
}

// inwards has the blocks of a step looked at that have just begun, the first first.
func (m *machine) inwards(s *StepStatus) {
	blocks := m.p.steps[s.at].blocks
	m.expect(len(blocks))
	for i := len(blocks) - 1; i >= 0; i-- {
		if m.x.blocks[blocks[i]].entered {
			m.ready = append(m.ready, blocks[i])
		}
	}
}

// choose returns the name of the first block whose condition holds, that of else, or "".
func (m *machine) choose(plan *stepPlan) (string, error) {
	vars := m.vars(plan)
	for i, condition := range plan.cases {
		value, err := condition.Eval(vars)
		yes, isBool := value.(bool)
		if err == nil && !isBool {
			err = fmt.Errorf("it is %s, want a bool", describe(value))
		}
		switch {
		case err != nil && plan.If != "":
			return "", fmt.Errorf("if: %w", err)
		case err != nil:
			return "", fmt.Errorf("switch[%d].when: %w", i, err)
		case yes && plan.If != "":
			return "then", nil
		case yes:
			return "case " + strconv.Itoa(i), nil
		}
	}
	if len(plan.Else) > 0 {
		return "else", nil
	}
	return "", nil
}

// ways are those that a person may choose.
func (p *stepPlan) ways() []string {
	var out []string
	if p.If != "" {
		out = append(out, "then")
	}
	for i := range p.Switch {
		out = append(out, "case "+strconv.Itoa(i))
	}
	return append(out, "else")
}

// chooseWay notes which way a person has an if or a switch go.
func (m *machine) chooseWay(in input) {
	x := m.x
	at := x.stepIndex(in.step)
	if at < 0 {
		m.noStep(in.step)
		return
	}
	s, plan := &x.Steps[at], m.p.steps[at]
	switch {
	case plan.If == "" && len(plan.Switch) == 0:
		m.invalid("step %q is neither an if nor a switch", in.step)
		return
	case !slices.Contains(plan.ways(), in.name):
		m.invalid("step %q has no case %q; it has %s", in.step, in.name, strings.Join(plan.ways(), ", "))
		return
	case x.Target != "":
		m.refuse("execution %s is turning back; wait for its end", x.ID)
		return
	case s.State != StepWaiting && !x.here(at):
		m.refuse("execution %s is past step %q; take it back there first", x.ID, in.step)
		return
	case s.Case != "" && s.Case == in.name:
		m.refuse("step %q has gone the way %q", in.step, in.name)
		return
	}
	m.unpark(in)
	m.emit(Event{Kind: EventStepChosen, Step: s.Name, Case: in.name, Actor: in.actor, Reason: in.reason})
	switch {
	case s.unopened():
		m.emit(Event{Kind: EventStepRetried, Step: s.Name, Actor: in.actor, Reason: in.reason})
	case s.Case != "":
		m.turn(Event{Kind: EventReturning, Step: s.Name, Actor: in.actor, Reason: in.reason})
	}
}

// neither says why nothing of the step runs.
func (p *stepPlan) neither() string {
	if p.If != "" {
		return "if is false: " + p.If
	}
	return "no case of the switch holds"
}
