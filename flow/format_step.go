package flow

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

var (
	leaves    = []kind{kindTool, kindFlow}
	toolsOnly = []kind{kindTool}
)

func stepFields() []field[Step] {
	return slices.Concat([]field[Step]{
		{name: "name", must: "each step has a name", form: nameForm, about: "Names the step; no other step of the document has the same name.",
			read: readText(func(s *Step) *string { return &s.Name })},
		{name: "title", form: textForm, about: "What people read.", read: readText(func(s *Step) *string { return &s.Title })},
		{name: "stage", form: textForm, about: "Groups steps for people; by default the tool's.", read: readText(func(s *Step) *string { return &s.Stage })},
		{name: "when", form: conditionFor, about: "A condition; if it does not hold, the step is skipped.", read: readFull(func(s *Step) *string { return &s.When })},
	}, kindFields(), leafFields())
}

// kindFields are the fields of which a step has exactly one, and what goes with each.
func kindFields() []field[Step] {
	return []field[Step]{
		{name: string(kindTool), form: map[string]any{"type": "string", "pattern": toolName.String()}, about: "Runs a tool.",
			read: readFull(func(s *Step) *string { return &s.Tool })},
		{name: string(kindFlow), form: map[string]any{"type": "string", "pattern": `^[a-z][a-z0-9_.-]{0,62}(@[1-9][0-9]*)?$`},
			about: "Runs another flow: NAME, its latest version, or NAME@VERSION.", read: readFull(func(s *Step) *string { return &s.Flow })},
		{name: string(kindNotify), form: refForm("notify"), about: "Sends a notice.",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				into.Notify = &Notify{Severity: "info"}
				readFields(d, n, path, into.Notify, d.format.notify)
			}},
		{name: string(kindIf), needs: []string{"then"}, form: conditionFor, about: "A condition: then runs if it holds, else if not.",
			read: readFull(func(s *Step) *string { return &s.If })},
		{name: "then", kinds: []kind{kindIf}, form: refForm("steps"), about: "The steps that run if the condition holds.", read: readSteps(func(s *Step) *[]Step { return &s.Then })},
		{name: string(kindSwitch), form: map[string]any{"type": "array", "items": refForm("case"), "minItems": 1},
			about: "Cases in order: the first whose condition holds runs, or else. If none does, nothing runs, and that is no failure.",
			read:  func(d *document, into *Step, n *yaml.Node, path string) { into.Switch = d.cases(n, path) }},
		{name: "else", kinds: []kind{kindIf, kindSwitch}, form: refForm("steps"), about: "The steps that run otherwise.", read: readSteps(func(s *Step) *[]Step { return &s.Else })},
		{name: string(kindBranches), form: map[string]any{"type": "object", "propertyNames": nameForm, "additionalProperties": refForm("steps"), "minProperties": 1},
			about: "Lists of steps by name that run side by side; the step ends when all have.",
			read:  func(d *document, into *Step, n *yaml.Node, path string) { into.Branches = d.branches(n, path) }},
		{name: string(kindSignal), form: textForm, about: "Waits for the signal of that name, which may hold expressions. Its output is {payload, id, from}.",
			read: readFull(func(s *Step) *string { return &s.Signal })},
		{name: string(kindApprove), form: refForm("approve"), about: "Waits for people to approve. Its output is {approved, by, comment}; a refusal is a failure with the code " + CodeRefused + ".",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				into.Approve = &Approve{Count: 1}
				readFields(d, n, path, into.Approve, d.format.approve)
				d.approvers(into.Approve, path)
			}},
		{name: string(kindSleep), form: map[string]any{"type": []any{"string", "integer"}}, about: "Waits: a duration, or an expression of one or of seconds.",
			read: readFull(func(s *Step) *string { return &s.Sleep })},
		{name: string(kindWindow), form: refForm("window"), about: "Waits until inside a time window.",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				into.Window = &Window{}
				readFields(d, n, path, into.Window, d.format.window)
			}},
	}
}

// leafFields say more about a step that does something by itself.
func leafFields() []field[Step] {
	return []field[Step]{
		{name: "with", kinds: leaves, form: mappingForm, about: "The input, or the parameters of the flow. Texts may hold ${expressions}; one that is an expression alone keeps its type.",
			read: readMapping(func(s *Step) *map[string]any { return &s.With })},
		{name: "output", kinds: leaves, form: mappingForm, about: "What other steps see, made of what came back (the variable output); by default that as it is.",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				if into.Output = d.mapping(n, path); len(n.Content) == 0 && n.Kind == yaml.MappingNode {
					d.fault(n, path, "is empty; say what the output is, or leave it out")
				}
			}},
		{name: "on", kinds: toolsOnly, form: textForm, about: "The device whose worker runs the tool.", read: readFull(func(s *Step) *string { return &s.On })},
		{name: "each", kinds: leaves, form: textForm, about: "A list: the step runs once per entry, which is item, and its position index. Its output is {items: [...]}.",
			read: readFull(func(s *Step) *string { return &s.Each })},
		{name: "parallel", kinds: leaves, needs: []string{"each"}, form: countForm, about: "How many items run at a time; by default 1.", read: readCount(func(s *Step) *int { return &s.Parallel })},
		{name: "batch", kinds: leaves, needs: []string{"each"}, form: countForm, about: "So many items make a batch; the next one starts when all of the last have ended.", read: readCount(func(s *Step) *int { return &s.Batch })},
		{name: "quota", kinds: leaves, needs: []string{"each"}, form: map[string]any{"type": []any{"string", "integer"}, "pattern": `^[0-9]+%?$`},
			about: "So many items, or such a share of them (10%), may fail before the step does. What failed is null in the output.",
			read:  readFull(func(s *Step) *string { return &s.Quota })},
		{name: "repeat", kinds: leaves, apart: "each", form: refForm("repeat"), about: "Runs the step again and again until a condition holds. Its output is that of the last iteration.",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				into.Repeat = &Repeat{}
				readFields(d, n, path, into.Repeat, d.format.repeat)
			}},
		{name: "retry", kinds: leaves, form: refForm("retry"), about: "How often a failed attempt is made again; by default never.",
			read: func(d *document, into *Step, n *yaml.Node, path string) { into.Retry = d.retry(n, path) }},
		{name: "timeout", kinds: []kind{kindTool, kindFlow, kindSignal, kindApprove}, form: durationForm,
			about: "Bounds an attempt, or the wait for a signal or an approval. By default the tool's, else " + DefaultTimeout.String() + "; a wait has none.",
			read:  readDuration(func(s *Step) *Duration { return &s.Timeout })},
		{name: "total", kinds: leaves, form: durationForm, about: "Bounds all attempts of an item together; by default there is none.", read: readDuration(func(s *Step) *Duration { return &s.Total })},
		{name: "heartbeat", kinds: toolsOnly, form: durationForm, about: "A tool that says nothing for so long is lost.", read: readDuration(func(s *Step) *Duration { return &s.Heartbeat })},
		{name: "exclusive", kinds: leaves, form: textForm, about: "A key that may hold expressions: of all steps of all executions, one runs under it at a time.",
			read: readFull(func(s *Step) *string { return &s.Exclusive })},
		{name: "undo", kinds: leaves, form: map[string]any{"oneOf": []any{enumForm("none"), refForm("undo")}}, about: "How the step is taken back when its execution fails or is cancelled: none, or a mapping; by default the tool's own.",
			read: func(d *document, into *Step, n *yaml.Node, path string) { into.Undo = d.undo(n, path) }},
		{name: "on_failure", kinds: []kind{kindTool, kindFlow, kindSignal, kindApprove, kindSleep, kindWindow}, form: map[string]any{"oneOf": []any{enumForm("fail", "skip", "pause"), refForm("handler")}},
			about: "What becomes of the execution when the step has failed for good: fail (the default: what was done is undone), skip (go on without its output), pause (wait for a person), or steps that handle it.",
			read: func(d *document, into *Step, n *yaml.Node, path string) {
				into.OnFailure, into.Handler = d.stepFailure(n, path)
			}},
	}
}

func notifyFields() []field[Notify] {
	return []field[Notify]{
		{name: "text", must: "a notice says something", form: textForm, about: "What it says; it may hold expressions.", read: readFull(func(s *Notify) *string { return &s.Text })},
		{name: "severity", form: enumForm("info", "warning", "critical"), about: "info (the default), warning or critical.",
			read: func(d *document, into *Notify, n *yaml.Node, path string) {
				if into.Severity = d.text(n, path); !slices.Contains([]string{"info", "warning", "critical"}, into.Severity) {
					d.fault(n, path, "%q is unknown; want info, warning or critical", into.Severity)
				}
			}},
	}
}

func retryFields() []field[Retry] {
	return []field[Retry]{
		{name: "attempts", form: countForm, about: "In all; by default 1, of an undo 10.", read: readCount(func(r *Retry) *int { return &r.Attempts })},
		{name: "backoff", form: durationForm, about: "The wait before the second attempt; it doubles from one to the next. By default " + DefaultBackoff.String() + ".",
			read: readDuration(func(r *Retry) *Duration { return &r.Backoff })},
		{name: "max", form: durationForm, about: "The longest wait; by default " + DefaultBackoffMax.String() + ".", read: readDuration(func(r *Retry) *Duration { return &r.Max })},
		{name: "on", form: textsForm, about: "The codes of the errors that are tried again; by default all that are not permanent.", read: readTexts(func(r *Retry) *[]string { return &r.On })},
	}
}

func undoFields() []field[Undo] {
	return []field[Undo]{
		{name: "tool", form: map[string]any{"type": "string", "pattern": toolName.String()}, about: "The tool that takes it back; by default what the step's tool names.", read: readFull(func(u *Undo) *string { return &u.Tool })},
		{name: "with", form: mappingForm, about: "Its input; by default the step's own.", read: readMapping(func(u *Undo) *map[string]any { return &u.With })},
		{name: "retry", form: refForm("retry"), about: "How often it is tried; by default 10 times, after 500ms doubling to 30s.",
			read: func(d *document, into *Undo, n *yaml.Node, path string) { into.Retry = d.retry(n, path) }},
		{name: "on_failure", form: enumForm("fail", "skip"), about: "fail (the default: it waits for a person) or skip.",
			read: func(d *document, into *Undo, n *yaml.Node, path string) {
				into.OnFailure = d.onFailure(n, path, Fail, Skip)
			}},
	}
}

func caseFields() []field[Case] {
	return []field[Case]{
		{name: "when", must: "a case has when and steps", form: conditionFor, about: "The condition.", read: readFull(func(c *Case) *string { return &c.When })},
		{name: "steps", must: "a case has when and steps", form: refForm("steps"), about: "What runs if it is the first that holds.", read: readSteps(func(c *Case) *[]Step { return &c.Steps })},
	}
}

func approveFields() []field[Approve] {
	return []field[Approve]{
		{name: "text", must: "say what is to be approved", form: textForm, about: "The question; it may hold expressions.", read: readFull(func(a *Approve) *string { return &a.Text })},
		{name: "by", form: textsForm, about: "Who may: actors, or role:NAME; by default everybody who may approve.",
			read: func(d *document, into *Approve, n *yaml.Node, path string) { into.By = d.actors(n, path) }},
		{name: "count", form: countForm, about: "How many different people have to; by default 1.", read: readCount(func(a *Approve) *int { return &a.Count })},
	}
}

func windowFields() []field[Window] {
	clock := map[string]any{"type": "string", "pattern": `^([01]?[0-9]|2[0-3]):[0-5][0-9]$`}
	return []field[Window]{
		{name: "from", must: "a window has from and to, as in 01:00", form: clock, about: "The time of the day at which it opens: 01:00.", read: readFull(func(w *Window) *string { return &w.From })},
		{name: "to", must: "a window has from and to, as in 05:30", form: clock, about: "The time at which it closes; if that is before from, on the next day.", read: readFull(func(w *Window) *string { return &w.To })},
		{name: "days", form: map[string]any{"type": "array", "items": enumForm("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "minItems": 1}, about: "The days on which it opens; by default all.",
			read: readTexts(func(w *Window) *[]string { return &w.Days })},
		{name: "zone", form: textForm, about: "The time zone by its IANA name, as in Asia/Shanghai; by default UTC.", read: readFull(func(w *Window) *string { return &w.Zone })},
	}
}

func repeatFields() []field[Repeat] {
	return []field[Repeat]{
		{name: "until", must: "a repeat has until and max", form: textForm, about: "The condition that ends it, over output, of the last iteration, and index, its number from 0.", read: readFull(func(r *Repeat) *string { return &r.Until })},
		{name: "max", must: "a repeat has until and max", form: countForm, about: "After so many iterations without it the step has failed.", read: readCount(func(r *Repeat) *int { return &r.Max })},
		{name: "every", form: durationForm, about: "The wait between the end of an iteration and the next; by default none.", read: readDuration(func(r *Repeat) *Duration { return &r.Every })},
	}
}

func handlerFields() []field[Step] {
	return []field[Step]{
		{name: "steps", must: "a handler has steps", form: refForm("steps"), about: "They see the variable failure, with step, code and message; when they have ended, the flow goes on behind the step.",
			read: readSteps(func(s *Step) *[]Step { return &s.Handler })},
	}
}
