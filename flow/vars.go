package flow

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// items returns the list of an each step. It is worked out again after a restart: expressions over the same outputs
// have the same values.
func (m *machine) items(s *StepStatus, plan *stepPlan) ([]any, error) {
	if s.items != nil {
		return s.items, nil
	}
	value, err := plan.each.Eval(m.vars(plan))
	if err != nil {
		return nil, err
	}
	items, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%q is %s, want a list", plan.Each, describe(value))
	}
	s.items = items
	return items, nil
}

// vars returns the variables of the expressions of a step, with the outputs that they read decoded, and in a handler the failure.
func (m *machine) vars(plan *stepPlan) map[string]any {
	steps, _ := m.x.vars["steps"].(map[string]any)
	for _, at := range plan.uses {
		s := &m.x.Steps[at]
		if _, there := steps[s.Name]; there || s.State != StepDone {
			continue
		}
		if value, err := expr.Decode(s.Output, m.outputSchema(s, m.p.steps[at])); err == nil {
			steps[s.Name] = value
		}
	}
	if plan.handles < 0 {
		return m.x.vars
	}
	vars := maps.Clone(m.x.vars)
	failed := map[string]any{"step": m.x.Steps[plan.handles].Name, "code": "", "message": ""}
	if err := m.x.Steps[plan.handles].Error; err != nil {
		failed["code"], failed["message"] = err.Code, err.Message
	}
	vars["failure"] = failed
	return vars
}

// outputSchema is that of a step's output: of its tool's, or of a list of those.
func (m *machine) outputSchema(s *StepStatus, plan *stepPlan) *expr.Schema {
	if s.Fanned {
		return &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{"items": expr.List(plan.output)}}
	}
	return plan.output
}

// itemVars adds item and index.
func (m *machine) itemVars(s *StepStatus, plan *stepPlan, item int) (map[string]any, error) {
	vars := m.vars(plan)
	if !s.Fanned {
		return vars, nil
	}
	items, err := m.items(s, plan)
	if err != nil {
		return nil, err
	}
	if item >= len(items) {
		return nil, fmt.Errorf("each: the list has %d entries, there is no entry %d", len(items), item)
	}
	vars = maps.Clone(vars)
	vars["item"], vars["index"] = items[item], int64(item)
	return vars, nil
}

// resolve works out a task's input, its device and its exclusive key.
func (m *machine) resolve(s *StepStatus, plan *stepPlan, item int) (input json.RawMessage, device, key string, err error) {
	vars, err := m.itemVars(s, plan, item)
	if err != nil {
		return nil, "", "", err
	}
	if input, err = plan.input(vars); err != nil {
		return nil, "", "", err
	}
	if device, err = textOf(plan.on, vars, "on", plan.On, "the name of a device"); err != nil {
		return nil, "", "", err
	}
	key, err = textOf(plan.exclusive, vars, "exclusive", plan.Exclusive, "a text that is not empty")
	return input, device, key, err
}

// textOf is the text that a field of a step stands for; none without the field.
func textOf(t *template, vars map[string]any, field, source, want string) (string, error) {
	if t == nil {
		return "", nil
	}
	value, err := t.eval(vars)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	text, _ := value.(string)
	if text == "" {
		return "", fmt.Errorf("%s: %q is %s, want %s", field, source, describe(value), want)
	}
	return text, nil
}
