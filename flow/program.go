package flow

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// program is a definition made ready to run: expressions compiled, tools looked up, defaults filled in. It is
// immutable.
type program struct {
	Definition
	*layout
	steps  []*stepPlan // beside layout.steps
	locks  []*template // of Locks: texts
	result *template   // of Output; nil for none

	warnings []Fault // for Lint
}

// stepPlan is one step of a program.
type stepPlan struct {
	Step
	place
	effect   Effect
	probe    string             // the probe tool, for effect probe
	returned *expr.Schema       // what the tool or the flow hands back: the variable output
	output   *expr.Schema       // what other steps see of it, of one item: returned, or what the mapping makes of it
	accepts  *jsonschema.Schema // what the tool's input is held to; nil: nothing
	returns  *jsonschema.Schema // what the tool's output is held to; nil: nothing
	when     *expr.Expr
	each     *expr.Expr
	on       *template
	with     *template // nil for an empty input
	notice   *template
	undoTool string // "" for none
	undoOn   bool   // the undo runs on the step's device
	undoWith *template
	undo     Undo
	handles  int   // the step whose failure it is there for; -1 for none
	uses     []int // steps whose outputs the expressions read, for the undo as well

	cases       []*expr.Expr // of If and Switch: cases[i] opens blocks[i]; the block behind them, if any, is Else
	signal      *template    // its name: a text
	question    *template    // Approve's text
	sleep       *template    // see sleepTime
	until       *expr.Expr   // over output and index
	mapped      *template    // the output mapping, over output; with each it is done per item. nil: the output as it is
	exclusive   *template    // a text; with each one per item
	window      *window
	quota       quota
	flowName    string
	flowVersion int      // 0: the latest
	secret      []string // the parameters that are secrets of the flow that it calls
}

// quota says how many items of a step may fail before the step does: a count, or a share of them.
type quota struct{ count, percent int }

// allows returns how many of so many items may fail.
func (q quota) allows(items int) int { return max(q.count, items*q.percent/100) }

func parseQuota(text string) (quota, error) {
	number, share := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 1 || share && n > 100 || n > 100_000:
		return quota{}, fmt.Errorf("%q is no quota; want how many items may fail, as in 3, or which part of them, as in 10%%", text)
	case share:
		return quota{percent: n}, nil
	}
	return quota{count: n}, nil
}

// maxSleep bounds what a step may wait for.
const maxSleep = 365 * 24 * time.Hour

// sleepTime reads what a sleep's expression came to: a duration's text, or seconds.
func sleepTime(value any) (time.Duration, error) {
	var wait time.Duration
	switch v := value.(type) {
	case string:
		var d Duration
		if err := d.UnmarshalText([]byte(v)); err != nil {
			return 0, err
		}
		wait = time.Duration(d)
	case int64:
		if v > int64(maxSleep/time.Second) {
			return 0, fmt.Errorf("%d seconds are more than a year", v)
		}
		wait = time.Duration(v) * time.Second
	case float64:
		if !(v <= maxSleep.Seconds()) {
			return 0, fmt.Errorf("%v seconds are more than a year", v)
		}
		wait = time.Duration(v * float64(time.Second))
	default:
		return 0, fmt.Errorf("is %s; want a duration, as in 10m, or a number of seconds", describe(value))
	}
	switch {
	case wait < 0:
		return 0, fmt.Errorf("%s is less than nothing", wait)
	case wait > maxSleep:
		return 0, fmt.Errorf("%s is more than a year", wait)
	}
	return wait, nil
}

// parseCall reads NAME or NAME@VERSION. Version 0 is the latest.
func parseCall(text string) (name string, version int, err error) {
	name, pin, pinned := strings.Cut(text, "@")
	if !flowName.MatchString(name) {
		return "", 0, fmt.Errorf("%q is not a flow's name", name)
	}
	if pinned {
		if version, err = strconv.Atoi(pin); err != nil || version < 1 {
			return "", 0, fmt.Errorf("%q is no version; want a number from 1, as in %s@3", pin, name)
		}
	}
	return name, version, nil
}

// library is what a document is checked against.
type library struct {
	tools  *Tools
	stored bool // the document was saved once, maybe by a release that refused less
	// flow returns a version of a flow, 0 for the latest; nil if it is not known. It may be nil: then no flow is.
	flow func(name string, version int) *program
	// missing reports whether there is no such version of a flow. It may be nil: then nothing is known to be missing.
	missing func(name string, version int) bool
}

// compile checks a stored document against the tools at hand and returns the program, or nil if there are faults. A flow that it calls is looked up
// when it is called.
func compile(source []byte, tools *Tools) (*program, []Fault) {
	return compileWith(source, library{tools: tools, stored: true})
}

func compileWith(source []byte, lib library) (*program, []Fault) {
	d := read(source, lib.stored)
	var p *program
	if len(d.faults) == 0 {
		p = d.compile(lib)
	}
	if len(d.faults) > 0 {
		slices.SortStableFunc(d.faults, func(a, b Fault) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, d.faults
	}
	p.warnings = d.warnings
	return p, nil
}

// Parse reads a document without looking at tools: its form, types of parameters and names are checked, expressions are not.
func Parse(source []byte) (Definition, error) {
	d := parse(source)
	if len(d.faults) > 0 {
		return Definition{}, &DefinitionError{d.Name, d.faults}
	}
	return d.Definition, nil
}

// input resolves a step's input.
func (s *stepPlan) input(vars map[string]any) (json.RawMessage, error) {
	if s.with == nil {
		return json.RawMessage("{}"), nil
	}
	data, err := s.with.append(make([]byte, 0, 64), vars)
	if err != nil {
		return nil, err
	}
	return data, nil
}
