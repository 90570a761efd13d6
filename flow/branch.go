package flow

import (
	"fmt"
	"strconv"
)

// holds reports whether the step is one that holds others: if, switch, branches.
func (p *stepPlan) holds() bool { return p.If != "" || len(p.Switch) > 0 || len(p.Branches) > 0 }

// enter begins what a step holds: all of its branches, or the way that its conditions choose. It reports whether the step ended with that.
func (m *machine) enter(s *StepStatus, plan *stepPlan) bool {
	way := ""
	if len(plan.Branches) == 0 {
		var err error
		if way, err = m.choose(plan); err != nil {
			return m.failStep(s, plan, failure(CodeExpression, "%v", err))
		}
		if way == "" {
			m.emit(Event{Kind: EventStepSkipped, Step: s.Name, Reason: plan.neither()})
			return true
		}
	}
	m.emit(Event{Kind: EventStepEntered, Step: s.Name, Case: way})
	m.inwards(s)
	return false
}

// inwards has the blocks of a step looked at that have just begun, the first first.
func (m *machine) inwards(s *StepStatus) {
	blocks := m.p.steps[s.at].blocks
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

// neither says why nothing of the step runs.
func (p *stepPlan) neither() string {
	if p.If != "" {
		return "if is false: " + p.If
	}
	return "no case of the switch holds"
}
