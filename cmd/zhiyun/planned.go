package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// printPlanned tells step by step what a start would do, and what its tools say that they would touch.
func printPlanned(w io.Writer, run flow.Rehearsal) error {
	calls := map[string][]flow.PlannedCall{}
	for _, call := range run.Calls {
		top, _, _ := strings.Cut(call.Step, "/")
		calls[top] = append(calls[top], call)
	}
	t := table{columns: []string{"  STEP", "DOES", "ON", "WOULD"}}
	for _, s := range run.Steps {
		does := s.Tool
		if does == "" {
			does = s.Kind
		}
		name := "  " + strings.Repeat("  ", s.Depth) + s.Name
		own := calls[s.Name]
		if len(own) == 0 || s.Kind == "flow" {
			t.add(name, does, s.Device, becomes(s))
		}
		for i, call := range own {
			who := name
			switch {
			case s.Kind == "flow":
				who = name + strings.TrimPrefix(call.Step, s.Name)
				if call.Item > 0 {
					who += fmt.Sprintf("[%d]", call.Item)
				}
			case i > 0:
				who = fmt.Sprintf("%s[%d]", name, i)
			}
			for j, line := range wouldDo(call) {
				if j > 0 {
					t.add("", "", "", line)
					continue
				}
				t.add(who, call.Tool, call.Device, line)
			}
		}
	}
	if err := printTable(w, t); err != nil {
		return err
	}
	kinds := map[string]int{}
	var order []string
	for _, touch := range run.Touches {
		if kinds[touch.Kind]++; kinds[touch.Kind] == 1 {
			order = append(order, touch.Kind)
		}
	}
	for i, kind := range order {
		order[i] = fmt.Sprintf("%d of %s", kinds[kind], kind)
	}
	if len(order) > 0 {
		fmt.Fprintf(w, "touches, as far as tools can tell: %s\n", strings.Join(order, ", "))
	}
	return nil
}

// becomes is what becomes of a step that makes no call that is known.
func becomes(s flow.PlannedStep) string {
	switch {
	case s.Fate == flow.RunsNot:
		return "not run: " + s.Why
	case s.Fails != "":
		return "fail: " + s.Fails
	case s.Says != "":
		return "say: " + s.Says
	case s.Waits != "":
		return "wait for " + s.Waits
	case s.Takes != "":
		return "take the way " + s.Takes
	}
	var out []string
	if s.Fate == flow.Open {
		out = append(out, "open: "+s.Why)
	}
	if len(s.Needs) > 0 {
		out = append(out, "needs "+strings.Join(s.Needs, ", "))
	}
	if input, err := json.Marshal(s.Input); err == nil && s.Input != nil {
		out = append(out, "input "+string(input))
	}
	return strings.Join(out, "; ")
}

// wouldDo is what one call would do, a line for each thing that it touches.
func wouldDo(c flow.PlannedCall) []string {
	var out []string
	for _, touch := range c.Touches {
		line := touch.Kind + " " + touch.Name
		if touch.Change != "" {
			line += ": " + touch.Change
		}
		out = append(out, line)
	}
	if c.Text != "" {
		out = append(out, c.Text)
	}
	switch {
	case c.Error != nil:
		out = append(out, "fail: "+c.Error.Error())
	case !c.Known:
		out = append(out, "it cannot tell; input "+string(c.Input))
	case len(out) == 0:
		out = append(out, "touch nothing")
	}
	return out
}
