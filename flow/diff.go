package flow

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Change is one difference between two versions of a flow.
type Change struct {
	// Part is what differs: the flow itself, "", "params.NAME", or "steps.NAME".
	Part  string `json:"part,omitempty"`
	Field string `json:"field,omitempty"` // of it; "" if all of it came, went or moved
	// Kind is added, removed, changed or moved.
	Kind   string `json:"kind"`
	Before string `json:"before,omitempty"` // YAML; where it stood, if it moved
	After  string `json:"after,omitempty"`
}

// Diff returns the differences between two versions of a flow, by step and field: first those of the flow, then of its parameters, then of its steps in
// the order of the new one.
func Diff(before, after Definition) []Change {
	f := newFormat()
	var out []Change
	out = append(out, diffFields("", fieldTexts(f, &before, f.document), fieldTexts(f, &after, f.document), names(f.document), []string{"params", "steps"})...)
	was, is := map[string]map[string]string{}, map[string]map[string]string{}
	var order []string
	for i := range before.Params {
		was[before.Params[i].Name] = fieldTexts(f, &paramSource{Param: before.Params[i]}, f.param)
		order = append(order, before.Params[i].Name)
	}
	var newOrder []string
	for i := range after.Params {
		is[after.Params[i].Name] = fieldTexts(f, &paramSource{Param: after.Params[i]}, f.param)
		newOrder = append(newOrder, after.Params[i].Name)
	}
	out = append(out, diffParts("params.", was, is, order, newOrder, names(f.param), nil)...)

	old, now := newLayout(&before), newLayout(&after)
	was, is = map[string]map[string]string{}, map[string]map[string]string{}
	steps := func(l *layout, into map[string]map[string]string) (order []string) {
		for _, at := range l.steps {
			step := *at.step
			step.Then, step.Else, step.Handler, step.Switch, step.Branches = nil, nil, nil, bare(step.Switch), nil
			into[step.Name] = fieldTexts(f, &step, f.step)
			order = append(order, step.Name)
		}
		return order
	}
	order, newOrder = steps(old, was), steps(now, is)
	return append(out, diffParts("steps.", was, is, order, newOrder, names(f.step), moves(old, now))...)
}

// bare keeps the conditions of a switch; its steps are compared by themselves.
func bare(cases []Case) []Case {
	out := slices.Clone(cases)
	for i := range out {
		out[i].Steps = nil
	}
	return out
}

func names[T any](table []field[T]) []string {
	out := make([]string, len(table))
	for i := range table {
		out[i] = table[i].name
	}
	return out
}

// fieldTexts writes each field by itself.
func fieldTexts[T any](f *format, from *T, table []field[T]) map[string]string {
	out := map[string]string{}
	for _, one := range table {
		if node := one.write(f, from); node != nil {
			flowStyle(node)
			text, err := yaml.Marshal(node)
			if err == nil {
				out[one.name] = strings.TrimSuffix(string(text), "\n")
			}
		}
	}
	return out
}

// flowStyle writes a value in one line.
func flowStyle(node *yaml.Node) {
	if node.Kind != yaml.ScalarNode {
		node.Style |= yaml.FlowStyle
	}
	for _, inner := range node.Content {
		flowStyle(inner)
	}
}

func diffFields(part string, was, is map[string]string, order, except []string) []Change {
	var out []Change
	for _, name := range order {
		before, had := was[name]
		after, has := is[name]
		c := Change{Part: part, Field: name, Before: before, After: after}
		switch {
		case slices.Contains(except, name) || before == after && had == has:
			continue
		case !had:
			c.Kind = "added"
		case !has:
			c.Kind = "removed"
		default:
			c.Kind = "changed"
		}
		out = append(out, c)
	}
	return out
}

func diffParts(prefix string, was, is map[string]map[string]string, order, newOrder, fields []string, moved map[string]Change) []Change {
	var out []Change
	for _, name := range order {
		if is[name] == nil {
			out = append(out, Change{Part: prefix + name, Kind: "removed", Before: summary(was[name], fields)})
		}
	}
	for _, name := range newOrder {
		if was[name] == nil {
			out = append(out, Change{Part: prefix + name, Kind: "added", After: summary(is[name], fields)})
			continue
		}
		if c, is := moved[name]; is {
			c.Part, c.Kind = prefix+name, "moved"
			out = append(out, c)
		}
		out = append(out, diffFields(prefix+name, was[name], is[name], fields, nil)...)
	}
	return out
}

func summary(texts map[string]string, order []string) string {
	var parts []string
	for _, name := range order {
		if text := texts[name]; text != "" && name != "name" {
			parts = append(parts, name+": "+text)
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// moves finds the steps that are held by another step or way than before, or whose order among their neighbours has changed: the fewest that have to
// move for the others to stay.
func moves(old, now *layout) map[string]Change {
	out := map[string]Change{}
	where := func(l *layout, i int) string {
		at := l.steps[i]
		if at.parent < 0 {
			return "the flow"
		}
		return l.blocks[at.block].name + " of " + l.steps[at.parent].step.Name
	}
	for _, b := range now.blocks {
		var stay []int // positions before, of those that were in the same place
		for _, i := range b.steps {
			name := now.steps[i].step.Name
			j, was := old.index[name]
			switch {
			case !was:
			case where(old, j) != where(now, i):
				out[name] = Change{Before: "in " + where(old, j), After: "in " + where(now, i)}
			default:
				stay = append(stay, j)
			}
		}
		kept := increasing(stay)
		last := ""
		for _, i := range b.steps {
			name := now.steps[i].step.Name
			if j, was := old.index[name]; was && slices.Contains(stay, j) && !slices.Contains(kept, j) {
				c := Change{After: "first"}
				if last != "" {
					c.After = "behind " + last
				}
				out[name] = c
			}
			last = name
		}
	}
	return out
}

// increasing returns a longest increasing subsequence.
func increasing(numbers []int) []int {
	var tails []int // the index of the smallest end of a subsequence of each length
	before := make([]int, len(numbers))
	for i, n := range numbers {
		at, _ := slices.BinarySearchFunc(tails, n, func(j, n int) int { return numbers[j] - n })
		before[i] = -1
		if at > 0 {
			before[i] = tails[at-1]
		}
		if at == len(tails) {
			tails = append(tails, i)
		} else {
			tails[at] = i
		}
	}
	var out []int
	if len(tails) > 0 {
		for i := tails[len(tails)-1]; i >= 0; i = before[i] {
			out = append(out, numbers[i])
		}
	}
	slices.Reverse(out)
	return out
}

// Diff returns the differences between two versions of a flow; version 0 is the latest. See the function Diff.
func (e *Engine) Diff(ctx context.Context, name string, before, after int) ([]Change, error) {
	a, err := e.Definition(ctx, name, before)
	if err != nil {
		return nil, fmt.Errorf("flow: diff %s: %w", name, err)
	}
	b, err := e.Definition(ctx, name, after)
	if err != nil {
		return nil, fmt.Errorf("flow: diff %s: %w", name, err)
	}
	return Diff(a, b), nil
}
