package flowtest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Difference is one thing that came out differently.
type Difference struct {
	Where    string // as "step install item 2 input"; of a sub-flow, "step deploy: step install"
	Recorded string
	Replayed string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: recorded: %s; replayed: %s", d.Where, d.Recorded, d.Replayed)
}

// compare holds an execution and its sub-flows to the recorded ones.
func (r *replay) compare(w *World, id, under string) []Difference {
	x := w.Get(id)
	was := &r.executions[r.recordedID(context.Background(), id)].execution.Execution
	c := &comparison{replay: r, under: under}
	c.texts("state", string(was.State), string(x.State))
	c.texts("error", code(was.Error), code(x.Error))
	if was.Wake.Kind != flow.WakeLease { // else that is what a tool says, and none runs
		c.texts("waits for", was.Waiting, x.Waiting)
	}
	now := map[string]*flow.StepStatus{}
	for i := range x.Steps {
		now[x.Steps[i].Name] = &x.Steps[i]
	}
	for i := range was.Steps {
		s := &was.Steps[i]
		if now[s.Name] == nil {
			if s.State != flow.StepWaiting {
				c.differ("step "+s.Name, "it is "+string(s.State), "it is gone")
			}
			continue
		}
		c.step(s, now[s.Name])
		delete(now, s.Name)
	}
	for i := range x.Steps {
		if s := &x.Steps[i]; now[s.Name] != nil && s.State != flow.StepWaiting {
			c.differ("step "+s.Name, "there is none", "it is "+string(s.State))
		}
	}
	return append(c.out, r.compareSubflows(w, id, under)...)
}

func (r *replay) compareSubflows(w *World, id, under string) []Difference {
	rows, _, err := w.Engine.List(context.Background(), flow.Filter{Parent: id, Oldest: true, Limit: 1000})
	if err != nil {
		return []Difference{{under + "sub-flows", "", err.Error()}}
	}
	var out []Difference
	for _, row := range rows {
		step, _, _ := strings.Cut(strings.TrimPrefix(row.Key, id+"/"), "/")
		if r.recordedID(context.Background(), row.ID) == "" {
			out = append(out, Difference{under + "step " + step, "no such sub-flow", "it runs the flow " + row.Flow})
			continue
		}
		out = append(out, r.compare(w, row.ID, under+"step "+step+": ")...)
	}
	return out
}

type comparison struct {
	replay *replay
	under  string
	out    []Difference
}

func (c *comparison) differ(where, recorded, replayed string) {
	c.out = append(c.out, Difference{c.under + where, recorded, replayed})
}

func (c *comparison) texts(where, recorded, replayed string) {
	if recorded != replayed {
		c.differ(where, or(recorded), or(replayed))
	}
}

func or(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func code(e *flow.Error) string {
	if e == nil {
		return ""
	}
	return e.Code
}

// values compares JSON by what it says.
func (c *comparison) values(where string, recorded, replayed json.RawMessage) {
	var was, is any
	now := c.replay.renamed(replayed)
	if json.Unmarshal(recorded, &was) == nil && json.Unmarshal([]byte(now), &is) == nil && reflect.DeepEqual(was, is) {
		return
	}
	c.texts(where, string(recorded), now)
}

func (c *comparison) step(was, is *flow.StepStatus) {
	name := "step " + was.Name
	c.texts(name+" state", string(was.State), string(is.State))
	c.texts(name+" tool", was.Tool, is.Tool)
	if len(was.Tasks) != len(is.Tasks) {
		c.differ(name+" items", fmt.Sprint(len(was.Tasks)), fmt.Sprint(len(is.Tasks)))
	}
	for i := range min(len(was.Tasks), len(is.Tasks)) {
		at := name
		if was.Fanned {
			at = fmt.Sprintf("%s item %d", name, i)
		}
		c.task(at, &was.Tasks[i], &is.Tasks[i])
	}
	if len(was.Tasks) == 0 || len(is.Tasks) == 0 {
		c.values(name+" output", was.Output, is.Output)
	}
}

func (c *comparison) task(at string, was, is *flow.Task) {
	c.texts(at+" state", string(was.State), string(is.State))
	c.texts(at+" device", was.Device, is.Device)
	c.values(at+" input", was.Input, is.Input)
	c.values(at+" output", was.Output, is.Output)
	c.texts(at+" error", code(was.Error), code(is.Error))
	switch {
	case was.Undo == nil && is.Undo == nil:
	case was.Undo == nil:
		c.differ(at+" undo", "none", string(is.Undo.State))
	case is.Undo == nil:
		c.differ(at+" undo", string(was.Undo.State), "none")
	default:
		c.texts(at+" undo", string(was.Undo.State), string(is.Undo.State))
	}
}
