package flow

import (
	"slices"
	"strings"
)

// kind is what a step does. It is named by the field of which each step has exactly one.
type kind string

const (
	kindTool     kind = "tool"
	kindFlow     kind = "flow"
	kindNotify   kind = "notify"
	kindIf       kind = "if"
	kindSwitch   kind = "switch"
	kindBranches kind = "branches"
	kindSignal   kind = "signal"
	kindApprove  kind = "approve"
	kindSleep    kind = "sleep"
	kindWindow   kind = "window"
)

// stepKinds are all kinds, in the order in which they are listed to people.
var stepKinds = []kind{kindTool, kindFlow, kindNotify, kindIf, kindSwitch, kindBranches, kindSignal, kindApprove, kindSleep, kindWindow}

// kind returns the step's kind.
func (s *Step) kind() kind {
	switch {
	case s.Tool != "":
		return kindTool
	case s.Flow != "":
		return kindFlow
	case s.Notify != nil:
		return kindNotify
	case s.If != "":
		return kindIf
	case len(s.Switch) > 0:
		return kindSwitch
	case len(s.Branches) > 0:
		return kindBranches
	case s.Signal != "":
		return kindSignal
	case s.Approve != nil:
		return kindApprove
	case s.Sleep != "":
		return kindSleep
	case s.Window != nil:
		return kindWindow
	}
	return ""
}

// outputs reports whether such a step has an output.
func (k kind) outputs() bool {
	return slices.Contains([]kind{kindTool, kindFlow, kindSignal, kindApprove}, k)
}

// article names the kind in a sentence.
func (k kind) article() string {
	switch k {
	case kindIf, kindApprove:
		return "an " + string(k)
	case kindBranches:
		return "a set of branches"
	}
	return "a " + string(k)
}

// listKinds names kinds for people.
func listKinds(kinds []kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}
